//! `--set KEY=VALUE`: another value for a key of a recipe, or for an element of an array in it.

use anyhow::{Context, Result, anyhow, bail, ensure};
use toml::{Table, Value};

/// Sets `a.b[0].c=value`; the value is TOML, or text where it is not. Tables that are not there are made, elements are not.
///
/// # Errors
/// One sentence that names the setting, and the part of its key that cannot be followed.
pub(super) fn apply(recipe: &mut Value, set: &str) -> Result<()> {
    let (key, value) =
        set.split_once('=').ok_or_else(|| anyhow!("--set {set}: write key=value"))?;
    let key = key.trim();
    ensure!(key != "task", "--set {set}: the task of a recipe is fixed");
    let value = parse(value).with_context(|| format!("--set {set}"))?;
    *find(recipe, key).with_context(|| format!("--set {set}"))? = value;
    Ok(())
}

fn parse(value: &str) -> Result<Value> {
    let parsed = toml::from_str::<Table>(&format!("v = {value}"));
    if let Some(value) = parsed.ok().and_then(|mut parsed| parsed.remove("v")) {
        return Ok(value);
    }
    let number = value.trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(
        !is_whole || number.parse::<i64>().is_ok(),
        "TOML has whole numbers from {} to {} alone; a text of digits is written in quotes",
        i64::MIN,
        i64::MAX
    );
    Ok(Value::String(value.to_owned()))
}

fn find<'a>(recipe: &'a mut Value, key: &str) -> Result<&'a mut Value> {
    let mut place = recipe;
    let mut before = "the recipe";
    for part in key.split('.') {
        let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        if place.as_array().is_some_and(|elements| !elements.is_empty()) {
            bail!("`{before}` is an array: name an element, as in `{before}[0]`");
        }
        let table = place.as_table_mut().ok_or_else(|| anyhow!("`{before}` is not a table"))?;
        place = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
        for index in indices.split_inclusive(']') {
            place = element(place, index).with_context(|| format!("`{part}`"))?;
        }
        before = part;
    }
    Ok(place)
}

/// The element of an array at `[index]`, counted from 0.
fn element<'a>(array: &'a mut Value, index: &str) -> Result<&'a mut Value> {
    let digits = index.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let index: usize = digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| anyhow!("{index} is no index: write [0] for the first element"))?;
    let elements = array.as_array_mut().context("it is not an array")?;
    let count = elements.len();
    elements.get_mut(index).ok_or_else(|| {
        anyhow!("there is no [{index}]: elements are counted from 0, and there are {count}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Value {
        let text = "name = 'mine'\n[[method]]\nname = 'a'\n[[method]]\nname = 'b'\ngroups = [[1, 2], [3]]\n";
        Value::Table(toml::from_str(text).unwrap())
    }

    #[test]
    fn keys_lead_through_tables_and_arrays() {
        let mut recipe = recipe();
        for set in ["method[1].train.steps=7", "method[0]={name='c'}", "method[1].groups[0][1]=x"] {
            apply(&mut recipe, set).unwrap();
        }
        let methods = &recipe["method"];
        assert_eq!(
            methods[1]["train"]["steps"].as_integer(),
            Some(7),
            "a table that was not there"
        );
        assert_eq!(methods[1]["name"].as_str(), Some("b"), "its neighbours stay");
        assert_eq!(methods[0]["name"].as_str(), Some("c"));
        assert_eq!(methods[1]["groups"][0][1].as_str(), Some("x"), "text that is no TOML");
    }

    #[test]
    fn a_key_that_leads_nowhere_is_refused() {
        let refusal = |set| format!("{:#}", apply(&mut recipe(), set).unwrap_err());
        assert_eq!(
            refusal("method[2].name=c"),
            "--set method[2].name=c: `method[2]`: there is no [2]: elements are counted from 0, and there are 2"
        );
        assert!(refusal("method[last].name=c").contains("[last] is no index"));
        assert!(refusal("method[1=c").contains("[1 is no index"));
        assert!(refusal("name[0]=c").contains("not an array"));
        assert!(refusal("name.first=c").contains("`name` is not a table"));
        assert!(refusal("method.name=c").contains("name an element, as in `method[0]`"));
        assert!(refusal("name").contains("key=value"));
        assert!(refusal("task=align").contains("fixed"));
    }

    #[test]
    fn a_number_beyond_those_of_toml_is_no_text() {
        let set = |set| {
            let mut recipe = recipe();
            apply(&mut recipe, set).map(|()| recipe["name"].clone())
        };
        assert_eq!(set("name=9223372036854775807").unwrap(), Value::Integer(i64::MAX));
        assert_eq!(set("name=007").unwrap().as_str(), Some("007"));
        assert_eq!(
            set("name='9223372036854775808'").unwrap().as_str(),
            Some("9223372036854775808")
        );
        for beyond in ["name=9223372036854775808", "name=-9223372036854775809"] {
            let message = format!("{:#}", set(beyond).unwrap_err());
            assert!(
                message.contains(beyond) && message.contains("to 9223372036854775807"),
                "{message}"
            );
        }
    }
}
