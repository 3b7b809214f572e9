use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::ChatTemplate;
use crate::{
    Clock, EngineError, LoadError, Message, Role, Text, chat::TOKENIZER_CONFIG, fields::Fields,
    fixtures::MemoryFiles,
};

fn read(files: &MemoryFiles, clock: Option<Clock>) -> Result<ChatTemplate, LoadError> {
    let config = Fields::read_optional(files, TOKENIZER_CONFIG)?;
    ChatTemplate::read(files, config.as_ref(), clock)
}

fn template(source: &str) -> Result<ChatTemplate, LoadError> {
    let config =
        json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": source});
    read(
        &MemoryFiles::default().with("tokenizer_config.json", config.to_string()),
        None,
    )
}

fn messages() -> Vec<Message> {
    let message = |role, content: &str| Message::new(role, Text::new(content.into()));
    vec![
        message(Role::System, "Be brief."),
        message(Role::User, " <b>Hi</b> & \"you\" "),
        message(Role::Assistant, "Yes?"),
    ]
}

fn render(source: &str) -> Result<String, EngineError> {
    template(source)
        .unwrap()
        .render(&messages(), &[], 1 << 20)
        .map(|text| text.expose().to_owned())
}

#[test]
fn renders_as_the_python_library_does() {
    // Lines that hold only a block leave nothing behind, and text is never escaped.
    let source = "{% for message in messages %}\n    {% if message['role'] != 'system' %}\n{{ '[' + message.role.upper() + ']' }}\
                  {{ message['content'].strip() }}{{ eos_token }}\n    {% endif %}\n{% endfor %}\n{{ bos_token }}";
    assert_eq!(
        render(source).unwrap(),
        "[USER]<b>Hi</b> & \"you\"</s>\n[ASSISTANT]Yes?</s>\n<s>"
    );
    let source = "{{ messages[1] | tojson }}{% if tools is not none %}tools{% endif %}\
                  {% if strftime_now is defined %}now{% else %}then{% endif %}{{ nothing }}\
                  {%- set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}\
                  {% if not add_generation_prompt is defined %}no{% endif %}{{ messages[1:] | length }}";
    assert_eq!(
        render(source).unwrap(),
        "{\"role\": \"user\", \"content\": \" <b>Hi</b> & \\\"you\\\" \"}then32"
    );
}

#[test]
fn a_refusal_of_the_template_carries_no_text() {
    let error = render("{{ raise_exception('no ' + messages[1].content) }}")
        .err()
        .unwrap();
    assert_eq!(error, EngineError::Template);
    assert!(!error.to_string().contains("Hi"));
    assert_eq!(
        render("{{ messages.nothing.at.all }}").err().unwrap(),
        EngineError::Template
    );
}

#[test]
fn templates_cannot_run_for_ever_or_grow_without_bound() {
    let loops = "{% for a in range(10000) %}{% for b in range(10000) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    assert_eq!(render(loops).err().unwrap(), EngineError::Template);
    let recursion = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert_eq!(render(recursion).err().unwrap(), EngineError::Template);
    let grown =
        template("{% for a in range(1000) %}{{ messages[0].content }}{% endfor %}").unwrap();
    assert!(matches!(
        grown.render(&messages(), &[], 100),
        Err(EngineError::Invalid(_))
    ));
    // It ends where the limit is, not after all of it was written: the exception behind it is never raised.
    let late = template(
        "{% for a in range(1000) %}{{ messages[0].content }}{% endfor %}{{ raise_exception('late') }}",
    );
    assert!(matches!(
        late.unwrap().render(&messages(), &[], 100),
        Err(EngineError::Invalid(_))
    ));
}

#[test]
fn the_date_comes_from_the_given_clock() {
    let files =
        MemoryFiles::default().with("chat_template.jinja", "{{ strftime_now('%d %b %Y') }}");
    let clock: Clock = Arc::new(|| std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let template = read(&files, Some(clock)).unwrap();
    assert_eq!(
        template
            .render(&messages(), &[], 100)
            .ok()
            .unwrap()
            .expose(),
        "15 Jan 2027"
    );
}

#[test]
fn the_template_is_found_or_missed_by_name() {
    let named = json!({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]});
    let files = MemoryFiles::default().with("tokenizer_config.json", named.to_string());
    let text = |files: &MemoryFiles| {
        read(files, None)
            .unwrap()
            .render(&messages(), &[], 100)
            .unwrap_or_else(|_| panic!())
            .expose()
            .to_owned()
    };
    assert_eq!(text(&files), "D");
    assert_eq!(text(&files.clone().with("chat_template.jinja", "F")), "F");

    let error = |files: MemoryFiles| read(&files, None).err().unwrap().to_string();
    assert!(
        error(MemoryFiles::default())
            .starts_with("tokenizer_config.json: field chat_template: missing")
    );
    assert!(
        error(MemoryFiles::default().with("tokenizer_config.json", "{}"))
            .contains("the model cannot chat")
    );
    let broken = MemoryFiles::default().with("chat_template.jinja", "a\n{% for %}");
    assert_eq!(
        error(broken),
        "chat_template.jinja: the chat template does not compile, see its line 2"
    );
    assert!(
        error(MemoryFiles::default().with("chat_template.jinja", vec![b'a'; 300 << 10]))
            .contains("the limit is")
    );
}
