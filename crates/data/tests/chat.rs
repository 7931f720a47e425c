//! Chat templates against Hugging Face transformers (`fixtures/make_chat.py`), and what cannot be rendered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use infalign_data::{ChatTemplate, DataError, Ending, Message, Role, Turn};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;

const SORTS: [&str; 5] = ["chatml", "headers", "turns", "marks", "methods"];
const WAYS: [(&str, Ending); 3] = [
    ("complete", Ending::Complete),
    ("generation_prompt", Ending::GenerationPrompt),
    ("continued", Ending::Continued),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat").join(name)
}

/// 2026-03-09 08:05:07, as in `make_chat.py`.
fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_773_043_507).unwrap()
}

fn said(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned() }
}

fn messages(list: &Value) -> Vec<Message> {
    let message = |value: &Value| {
        let role = match value["role"].as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        };
        said(role, value["content"].as_str().unwrap())
    };
    list.as_array().unwrap().iter().map(message).collect()
}

/// A folder with this `tokenizer_config.json`.
fn folder(config: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    folder
}

/// What the template makes of one question, without a time.
fn answered(template: &str) -> Result<String, DataError> {
    answered_at(template, None)
}

fn answered_at(template: &str, now: Option<OffsetDateTime>) -> Result<String, DataError> {
    let folder = folder(&json!({ "chat_template": template, "eos_token": "</s>" }));
    let question = [said(Role::User, "Hi")];
    ChatTemplate::read(folder.path(), now)?.render(&question, Ending::GenerationPrompt)
}

#[test]
fn texts_are_those_of_transformers_byte_for_byte() {
    let mut n_compared = 0;
    for sort in SORTS {
        let folder = fixture(sort);
        let template = ChatTemplate::read(&folder, Some(now())).unwrap();
        let cases = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        for case in serde_json::from_str::<Value>(&cases).unwrap().as_array().unwrap() {
            for (way, ending) in WAYS {
                let expected = &case["ways"][way];
                let found = template.render(&messages(&case["messages"]), ending);
                let found = match found {
                    Ok(text) => json!({ "text": text }),
                    Err(DataError::RefusedByTemplate { reason, .. }) => json!({ "raised": reason }),
                    Err(DataError::Messages { .. }) => json!({ "left_out": true }),
                    Err(other) => panic!("{sort}, {}, {way}: {other}", case["name"]),
                };
                assert_eq!(&found, expected, "{sort}, {}, {way}", case["name"]);
                n_compared += 1;
            }
        }
    }
    assert_eq!(n_compared, 5 * 7 * 3);
}

#[test]
fn a_prompt_is_answered_or_continued() {
    let template = ChatTemplate::read(&fixture("chatml"), None).unwrap();
    let talk = [said(Role::User, "Hi"), said(Role::Assistant, "Well, ")];
    for (messages, ending) in
        [(&talk[..1], Ending::GenerationPrompt), (&talk[..], Ending::Continued)]
    {
        let expected = template.render(messages, ending).unwrap();
        assert_eq!(template.prompt(messages).unwrap(), expected);
    }
    for (messages, last) in
        [(vec![said(Role::System, "Be kind.")], "of the role system"), (vec![], "none")]
    {
        let error = template.prompt(&messages).unwrap_err().to_string();
        assert!(error.contains(&format!("the last message is {last};")), "{error}");
    }
}

#[test]
fn the_words_of_a_refusal_are_reported_with_the_file() {
    let template = ChatTemplate::read(&fixture("turns"), None).unwrap();
    let two = [said(Role::System, "Be kind."), said(Role::User, "Hi")];
    let error = template.render(&two, Ending::GenerationPrompt).unwrap_err().to_string();
    assert!(error.contains("refuses the messages: System role not supported"), "{error}");
    assert!(error.contains("tokenizer_config.json"), "{error}");
    // From within a macro, too.
    let error = answered("{% macro no() %}{{ raise_exception('No!') }}{% endmacro %}{{ no() }}")
        .unwrap_err();
    assert!(
        matches!(&error, DataError::RefusedByTemplate { reason, .. } if reason == "No!"),
        "{error}"
    );
}

#[test]
fn special_tokens_that_are_not_set_are_blank() {
    assert_eq!(answered("[{{ bos_token }}{{ eos_token }}]").unwrap(), "[</s>]");
}

#[test]
fn what_is_no_special_token_is_refused() {
    let read = |key: &str, value: &Value| {
        let folder = folder(&json!({ "chat_template": "{{ bos_token }}", (key): value }));
        let read = ChatTemplate::read(folder.path(), None).map_err(|error| error.to_string());
        read?.render(&[said(Role::User, "Hi")], Ending::Complete).map_err(|error| error.to_string())
    };
    for value in [json!(5), json!({}), json!([]), json!(["<s>"]), json!({ "content": 5 })] {
        let error = read("bos_token", &value).unwrap_err();
        let told = format!("`bos_token` is {value}, but has to be text");
        assert!(error.contains("tokenizer_config.json") && error.contains(&told), "{error}");
    }
    assert_eq!(read("bos_token", &json!({ "content": "<s>" })).unwrap(), "<s>");
    for (key, value) in [("bos_token", Value::Null), ("add_bos_token", json!(true))] {
        assert_eq!(read(key, &value).unwrap(), "");
    }
}

#[test]
fn a_template_that_strips_the_last_message_can_be_continued_and_one_that_drops_it_cannot() {
    let continued = |template: &str| {
        let folder = folder(&json!({ "chat_template": template }));
        let talk = [said(Role::User, "Hi"), said(Role::Assistant, " Well, ")];
        ChatTemplate::read(folder.path(), None).unwrap().render(&talk, Ending::Continued)
    };
    let each = |what: &str| format!("{{% for m in messages %}}<{{{{ {what} }}}}>{{% endfor %}}");
    assert_eq!(continued(&each("m.content")).unwrap(), "<Hi>< Well, ");
    assert_eq!(continued(&each("m.content | trim")).unwrap(), "<Hi><Well,");
    let error = continued("{{ messages[0].content }}").unwrap_err().to_string();
    assert!(error.contains("end with one of user"), "{error}");
}

/// How the assistant's last message is written by Mistral, by Llama 2 (whose blank before `</s>` is the response's), Llama 3, Qwen3, and by
/// templates that close with nothing or have no header for the model to go on from.
#[test]
fn a_response_of_messages_is_what_the_template_writes_of_it() {
    let turn = |template: &str| {
        let folder = folder(&json!({ "chat_template": template, "eos_token": "</s>" }));
        let talk = [said(Role::User, "Hi"), said(Role::Assistant, " Well. ")];
        ChatTemplate::read(folder.path(), None).unwrap().turn(&talk)
    };
    let each = |answer: &str, header: &str| {
        format!(
            "{{% for m in messages %}}{{% if m.role == 'user' %}}[{{{{ m.content }}}}]\
             {{% else %}}{{{{ {answer} }}}}{{% endif %}}{{% endfor %}}\
             {{% if add_generation_prompt %}}{header}{{% endif %}}"
        )
    };
    for (answer, header, [prompt, response, closing]) in [
        ("' ' + m.content + eos_token", "", ["[Hi]", "  Well. ", "</s>"]),
        ("' ' + m.content.strip() + ' ' + eos_token", "", ["[Hi]", " Well. ", "</s>"]),
        ("'<a>' + m.content | trim + '<end>\n'", "<a>", ["[Hi]<a>", "Well.", "<end>\n"]),
        (
            "'<a><think></think>' + m.content + '<end>'",
            "<a>",
            ["[Hi]<a>", "<think></think> Well. ", "<end>"],
        ),
        ("'<a>' + m.content", "<a>", ["[Hi]<a>", " Well. ", ""]),
        ("'<a>' + m.content + '<end>'", "", ["[Hi]", "<a> Well. ", "<end>"]),
    ] {
        let expected =
            Turn { prompt: prompt.into(), response: response.into(), closing: closing.into() };
        assert_eq!(turn(&each(answer, header)).unwrap(), expected, "{answer}");
    }
    // A template that writes no system message before a question that is answered, as Mistral's.
    let forgets = "{% for m in messages %}{% if m.role == 'user' %}[{% if loop.last %}{{ messages[0].content }} {% endif %}{{ m.content }}]\
                   {% elif m.role == 'assistant' %} {{ m.content | trim }}</s>{% endif %}{% endfor %}";
    let folder = folder(&json!({ "chat_template": forgets }));
    let talk =
        [said(Role::System, "Short!"), said(Role::User, "Hi"), said(Role::Assistant, "Well.")];
    let found = ChatTemplate::read(folder.path(), None).unwrap().turn(&talk).unwrap();
    assert_eq!([found.prompt, found.response, found.closing], ["[Short! Hi]", " Well.", "</s>"]);
    // A thought that is only opened for the model, and a message that is not there.
    for template in [each("'<a>' + m.content", "<a><think>"), "{{ messages[0].content }}".into()] {
        let error = turn(&template).unwrap_err().to_string();
        assert!(error.contains("give prompt and response as texts"), "{error}");
    }
}

#[test]
fn without_a_time_a_template_may_not_ask_for_it() {
    let in_a_macro = "a\n{% macro day() %}\n{{ strftime_now('%Y') }}{% endmacro %}\n{{ day() }}";
    for (template, line) in [("{{ strftime_now('%Y') }}", 1), (in_a_macro, 3)] {
        let error = answered(template).unwrap_err().to_string();
        let told = format!("line {line}: it asks for the time (strftime_now)");
        assert!(error.contains(&told), "{error}");
    }
    let error = answered("{{ strptime('%Y') }}").unwrap_err().to_string();
    assert!(error.contains("line 1: strptime is unknown"), "{error}");
}

#[test]
fn a_template_that_asks_whether_there_is_a_time_has_a_date_of_its_own() {
    let guarded = "\
{%- if strftime_now is defined %}
    {%- set date = strftime_now('%d %b %Y') %}
{%- else %}
    {%- set date = '26 Jul 2024' %}
{%- endif %}
{{- date }}";
    let in_a_macro = format!("{{%- macro day() %}}{guarded}{{% endmacro %}}{{{{ day() }}}}");
    for template in [guarded, &in_a_macro] {
        assert_eq!(answered(template).unwrap(), "26 Jul 2024");
        assert_eq!(answered_at(template, Some(now())).unwrap(), "09 Mar 2026");
    }
}

#[test]
fn a_model_without_a_usable_template_is_refused() {
    let refused = |config: Value| {
        let folder = folder(&config);
        ChatTemplate::read(folder.path(), None).unwrap_err().to_string()
    };
    for config in [json!({}), json!({ "chat_template": null })] {
        let error = refused(config);
        assert!(
            error.contains("has no chat template") && error.contains("prompts as text"),
            "{error}"
        );
    }
    let error = refused(json!({ "chat_template": [{ "name": "tool_use", "template": "" }] }));
    assert!(error.contains("one is named default"), "{error}");
    let error = refused(json!({ "chat_template": "a\n{% if %}" }));
    assert!(error.contains("cannot be used: line 2: "), "{error}");
    let error = answered("{{ messages[0].content | nothing }}").unwrap_err().to_string();
    assert!(error.contains("line 1: ") && error.contains("nothing"), "{error}");
    let error = answered("{{ messages | tojson(sort_keys=true) }}").unwrap_err().to_string();
    assert!(error.contains("sort_keys"), "{error}");
    assert!(ChatTemplate::read(Path::new("no/such"), None).is_err());
}

#[test]
fn a_template_without_end_or_measure_is_stopped() {
    let rows = "{% for i in range(100000) %}";
    let endless = format!("{}{}", rows.repeat(4), "{% endfor %}".repeat(4));
    let doubling = "{% set t = namespace(x='ab') %}{% for i in range(99) %}{% set t.x = t.x ~ t.x %}{% endfor %}{{ t.x }}";
    let deep = "{% set t = namespace(x=[]) %}{% for i in range(99999) %}{% set t.x = [t.x] %}{% endfor %}{{ t.x }}";
    let indented = deep.replace("t.x }}", "t.x | tojson(indent=100) | length }}");
    for template in [endless.as_str(), doubling, indented.as_str()] {
        let error = answered(template).unwrap_err().to_string();
        assert!(error.contains("more work than any conversation needs"), "{error}");
    }
    let error = answered("{{ messages | tojson(indent=9000000000000000000) }}").unwrap_err();
    assert!(error.to_string().contains("at most 100"), "{error}");
    assert_eq!(answered(deep).unwrap().len(), 2 * 100_000);
}

#[test]
fn a_list_that_holds_one_list_twice_again_and_again_is_not_printed() {
    let twice = "{% set t = namespace(x=['a' * 1000]) %}{% for i in range(40) %}{% set t.x = [t.x, t.x] %}{% endfor %}";
    for printed in ["t.x", "t.x | string | length", "t.x | tojson | length"] {
        let error = answered(&format!("{twice}\n{{{{ {printed} }}}}")).unwrap_err().to_string();
        assert!(error.contains("line 2: it does more work than any conversation"), "{error}");
    }
}

#[test]
fn a_template_of_many_levels_is_read_and_a_huge_one_refused() {
    let minus = "-".repeat(20_000);
    assert_eq!(answered(&format!("{{{{ {minus}1 }}}}")).unwrap(), "1");
    let not = "not ".repeat(50_000);
    assert_eq!(answered(&format!("{{{{ {not}1 }}}}")).unwrap(), "True");
    let error = answered(&" ".repeat(262_145)).unwrap_err().to_string();
    let told = "tokenizer_config.json cannot be used: it has 262145 bytes; at most 262144 are read";
    assert!(error.ends_with(told), "{error}");
}

/// What the template makes of each expression.
fn check_values(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        let found = answered(&format!("{{{{ {expression} }}}}")).unwrap();
        assert_eq!(&found, expected, "{expression}");
    }
}

#[test]
fn texts_are_split_as_python_splits_them() {
    // What Python 3.11 gives.
    check_values(&[
        ("'a/b//c'.rsplit('/') | tojson", r#"["a", "b", "", "c"]"#),
        ("'a/b//c'.rsplit('/', 1) | tojson", r#"["a/b/", "c"]"#),
        ("'a/b//c'.rsplit('/', maxsplit=2) | tojson", r#"["a/b", "", "c"]"#),
        ("'a/b'.rsplit('/', 0) | tojson", r#"["a/b"]"#),
        ("'  a b  c '.rsplit() | tojson", r#"["a", "b", "c"]"#),
        ("'  a b  c '.rsplit(none, 1) | tojson", r#"["  a b", "c"]"#),
        ("' '.rsplit() | tojson", "[]"),
        ("'x<think>y'.rsplit('<think>', 1)[-1]", "y"),
        (r"'\x1ca\x1f b '.rsplit(none, 1) | tojson", r#"["\u001ca", "b"]"#),
        ("'a/b//c'.split('/') | tojson", r#"["a", "b", "", "c"]"#),
        ("'a-b-c'.split(sep='-', maxsplit=1) | tojson", r#"["a", "b-c"]"#),
        (r"'\x1c a \x1f b '.split() | tojson", r#"["a", "b"]"#),
        (r"' \x1c a \x1f b '.split(none, 1) | tojson", r#"["a", "b "]"#),
        ("' a b  c '.split(none, 0) | tojson", r#"["a b  c "]"#),
        ("' '.split() | tojson", "[]"),
    ]);
    for call in ["'a'.rsplit('')", "'a'.split('')"] {
        let error = answered(&format!("{{{{ {call} }}}}")).unwrap_err().to_string();
        assert!(error.contains("empty separator"), "{error}");
    }
}

#[test]
fn texts_are_stripped_as_python_strips_them() {
    // What Python 3.11 gives: U+001C to U+001F are white space there.
    check_values(&[
        (r"'\x1c\x1d hi \x1f' | trim", "hi"),
        (r"'\x1c\x1d hi \x1f'.strip()", "hi"),
        (r"'\x1e hi \x1f'.lstrip() | tojson", r#""hi \u001f""#),
        (r"'\x1e hi \x1f'.rstrip() | tojson", r#""\u001e hi""#),
        (r"'\x85\xa0 a\u200b\u3000' | trim", "a\u{200b}"),
        ("'xxaxx' | trim('x')", "a"),
        ("'xxaxx'.lstrip('x')", "axx"),
        ("'xaxx'.strip(none)", "xaxx"),
        ("5 | trim", "5"),
    ]);
}

#[test]
fn texts_have_lines_and_titles_as_in_python() {
    // What Python 3.11 gives.
    let lines = r"'a\r\nb\x0bc\x1cd\u2028e\x85f\n\n'.splitlines";
    let ends =
        "[\"a\\r\\n\", \"b\\u000b\", \"c\\u001c\", \"d\u{2028}\", \"e\u{85}\", \"f\\n\", \"\\n\"]";
    check_values(&[
        (format!("{lines}() | tojson").as_str(), r#"["a", "b", "c", "d", "e", "f", ""]"#),
        (format!("{lines}(true) | tojson").as_str(), ends),
        (format!("{lines}(keepends=true) | tojson").as_str(), ends),
        (r"'a\nb'.splitlines() | tojson", r#"["a", "b"]"#),
        (r#""they're bill's".title()"#, "They'Re Bill'S"),
        ("'a1b x_y ÀÉ ǆx ßa'.title()", "A1B X_Y Àé ǅx Ssa"),
        ("'ΑΣ ΣΑΣ α.Σ'.title()", "Ας Σας Α.Σ"),
        (r#""they're" | title"#, "They're"),
    ]);
}

#[test]
fn constants_and_tests_are_jinja_s() {
    // What Jinja 3.1 gives.
    check_values(&[
        (r"'\U0001F600\a\v<\/b>\\a' | tojson", r#""😀\u0007\u000b<\\/b>\\a""#),
        (r#""\U00000022" ~ '\U00000027'"#, "\"'"),
        ("'a\\\nb'", "ab"),
        ("['a' is sequence, {} is sequence, [] is sequence]", "[True, True, True]"),
        ("[messages is sequence, nix is sequence]", "[True, True]"),
        ("[5 is sequence, none is sequence, true is sequence]", "[False, False, False]"),
    ]);
}

#[test]
fn a_generation_block_is_a_scope_and_no_mark_within_texts() {
    // What transformers 5.24 gives.
    for (template, expected) in [
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{% generation %}{% set y = 2 %}{{ y }}{% endgeneration %}[{{ y }}]", "2[]"),
        (
            "{% for m in messages %}{% generation %}{{ loop.last }}{{ m.content }}{% endgeneration %}{% endfor %}",
            "TrueHi",
        ),
        (
            "{% set ns = namespace(a=1) %}{% generation %}{% set ns.a = 2 %}{% endgeneration %}{{ ns.a }}",
            "2",
        ),
        ("x {%- generation %}  a\n  {%+ endgeneration -%}\n b", "x  a\n  b"),
        (
            "{{ '{% generation %}' }}{% raw %}{% endgeneration %}{% endraw %}{# {% generation %} #}",
            "{% generation %}{% endgeneration %}",
        ),
    ] {
        assert_eq!(answered(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn texts_are_formatted_by_the_percent_sign_as_python_formats_them() {
    // What Jinja 3.1 gives.
    for (expression, expected) in [
        ("'%d' % 3", "3"),
        ("'%05.2f' % 3.14159", "03.14"),
        ("'%s-%s' % (1, 'a')", "1-a"),
        ("'%x' % 255", "ff"),
        ("'x' ~ '%3d' % 2 ~ 'y'", "x  2y"),
        ("7 % 4", "3"),
        ("'%(a)s' % {'a': 'b'}", "b"),
        ("'%s' % (messages|length)", "1"),
        ("'%d%%' % 5", "5%"),
        ("'%s' % messages[0].content|upper", "HI"),
        ("'%s' % (1,)", "1"),
        ("'%-4s|' % 'a'", "a   |"),
    ] {
        assert_eq!(answered(&format!("{{{{ {expression} }}}}")).unwrap(), expected, "{expression}");
    }
    let error = answered("{{ eos_token % 3 }}").unwrap_err().to_string();
    assert!(error.contains("line 1: ") && error.contains('%'), "{error}");
}

#[test]
fn a_long_conversation_is_not_stopped() {
    let paragraph = "Well, what do you think of it? ".repeat(32);
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    let long: Vec<_> = roles.map(|role| said(role, &paragraph)).take(2000).collect();
    for sort in SORTS {
        let template = ChatTemplate::read(&fixture(sort), Some(now())).unwrap();
        let text = template.render(&long, Ending::Complete).unwrap();
        assert!(text.len() > 1_900_000, "{sort}");
    }
}
