//! What loading takes: the only test of its process, whose peak the system tells.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use infalign_model::CausalLm;
use serde_json::json;

const VOCABULARY: usize = 4096;
const HIDDEN: usize = 512;
const INNER: usize = 2048;
const LAYERS: usize = 8;

/// Writes a Llama whose weights are all 0, which takes no memory, and returns their bytes.
fn write(dir: &Path) -> u64 {
    let config = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": 8, "max_position_embeddings": 64, "tie_word_embeddings": false,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let matrix = |[rows, columns]: [usize; 2]| vec![rows, columns];
    let mut shapes = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), matrix([VOCABULARY, HIDDEN])),
        ("lm_head.weight".to_owned(), matrix([VOCABULARY, HIDDEN])),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ]);
    for layer in 0..LAYERS {
        let parts = [
            ("self_attn.q_proj", matrix([HIDDEN, HIDDEN])),
            ("self_attn.k_proj", matrix([HIDDEN, HIDDEN])),
            ("self_attn.v_proj", matrix([HIDDEN, HIDDEN])),
            ("self_attn.o_proj", matrix([HIDDEN, HIDDEN])),
            ("mlp.gate_proj", matrix([INNER, HIDDEN])),
            ("mlp.up_proj", matrix([INNER, HIDDEN])),
            ("mlp.down_proj", matrix([HIDDEN, INNER])),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ];
        let named = |(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape);
        shapes.extend(parts.map(named));
    }
    let mut end = 0;
    let mut entry = |(name, shape): (&String, &Vec<usize>)| {
        let begin = end;
        end += shape.iter().product::<usize>() as u64 * 4;
        (name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] }))
    };
    let header: serde_json::Map<_, _> = shapes.iter().map(&mut entry).collect();
    let header = serde_json::Value::Object(header).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    end
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_takes_the_weights_and_little_more() {
    let dir = tempfile::tempdir().unwrap();
    let weights = write(dir.path());
    let device = infalign_backend::device(None).unwrap();
    let before = peak();
    let model = CausalLm::load(dir.path(), &device).unwrap();
    let taken = (peak() - before) as f64 / weights as f64;
    assert_eq!(model.config().num_hidden_layers, LAYERS);
    assert!(taken < 1.25, "loading took {taken:.2} times the weights");
}
