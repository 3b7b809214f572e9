use serde_json::json;

use super::Fields;
use crate::fixtures::MemoryFiles;

fn read(json: &str) -> Result<Fields<'static>, String> {
    let files = MemoryFiles::default().with("a.json", json);
    Fields::read(&files, "a.json").map_err(|error| error.to_string())
}

#[test]
fn errors_name_file_and_field() {
    let fields =
        read(&json!({"outer": {"size": -3}, "huge": 1e30, "text": "x".repeat(100)}).to_string())
            .unwrap();
    let outer = fields.object("outer").unwrap().unwrap();
    let error = outer.count("size", 9).unwrap_err().to_string();
    assert_eq!(
        error,
        "a.json: field outer.size: expected a whole number from 1 to 9, found -3"
    );
    assert_eq!(
        fields.count("missing", 9).unwrap_err().to_string(),
        "a.json: field missing: missing"
    );
    assert!(fields.count("huge", 9).is_err());
    let error = fields.flag("text", false).unwrap_err().to_string();
    assert_eq!(
        error,
        "a.json: field text: expected true or false, found a long string"
    );
}

#[test]
fn refuses_what_is_not_an_object() {
    assert_eq!(read("[]").err().unwrap(), "a.json: not a JSON object");
    assert_eq!(
        read("{\"a\": tru}").err().unwrap(),
        "a.json: not valid JSON at line 1 column 10"
    );
    assert!(read(&"[".repeat(10_000)).is_err());
}

#[test]
fn refuses_token_ids_outside_the_vocabulary() {
    let fields =
        read(&json!({"one": 5, "many": [1, 2], "wide": [1, 10], "odd": "x"}).to_string()).unwrap();
    assert_eq!(fields.token_ids("one", 10).unwrap(), [5]);
    assert_eq!(fields.token_ids("many", 10).unwrap(), [1, 2]);
    assert!(fields.token_ids("none", 10).unwrap().is_empty());
    assert!(fields.token_ids("wide", 10).is_err());
    assert!(fields.token_ids("odd", 10).is_err());
}
