//! The official OpenAI client for Python does what it does elsewhere.

use sim::stack::{Model, Stack};
use tests::models;

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_client_chats_streams_and_embeds() {
    let python = tests::root().join("target/tools/py/bin/python3");
    if !python.is_file() {
        tests::skip("the OpenAI client for Python");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tiny = models::both(dir.path());
    let embed: Model = models::minilm().unwrap_or_else(|| tiny[1].clone());
    let real = embed.name != models::EMBED;
    let chat = tiny[0].clone();
    let embed_name = embed.name.clone();
    let stack = Stack::start(tests::options(vec![chat, embed]))
        .await
        .unwrap();
    let output = tokio::process::Command::new(python)
        .arg(tests::root().join("tests/openai_client.py"))
        .args([&stack.base_url(), models::CHAT, &embed_name])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if real {
        let cosine: f32 = said
            .trim()
            .strip_prefix("cosine ")
            .unwrap()
            .parse()
            .unwrap();
        assert!((cosine - 0.761).abs() < 0.002, "{cosine}");
    }
    stack.stop().await;
}

/// The demo model, and the same with a template that shows it tools as Qwen's does.
fn demo_with_tools(dir: &std::path::Path) -> Model {
    let from = models::demo().dir;
    let to = dir.join("demo-with-tools");
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    let template = "{{ bos_token }}{% if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}\
        Answer calls as <tool_call>{}</tool_call>.<|end|>{% endif %}\
        {% for message in messages %}{{ '<|' + ('user' if message.role == 'tool' else message.role) + '|>' }}{{ message.content }}\
        {% for call in message.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|end|>{% endfor %}\
        <|assistant|>";
    std::fs::write(to.join("chat_template.jinja"), template).unwrap();
    Model {
        name: "demo-with-tools".to_owned(),
        dir: to,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_client_draws_shapes_calls_and_counts() {
    let python = tests::root().join("target/tools/py/bin/python3");
    if !python.is_file() {
        tests::skip("the OpenAI client for Python");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tiny = models::both(dir.path());
    let served = vec![
        models::demo(),
        demo_with_tools(dir.path()),
        tiny[0].clone(),
        tiny[1].clone(),
    ];
    let names: Vec<_> = served.iter().map(|model| model.name.clone()).collect();
    let stack = Stack::start(tests::options(served)).await.unwrap();
    let output = tokio::process::Command::new(python)
        .arg(tests::root().join("tests/openai_generation.py"))
        .arg(stack.base_url())
        .args(&names)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.ends_with("all said\n"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_example_does_what_it_says() {
    let python = tests::root().join("target/tools/py/bin/python3");
    let (true, Some(minilm)) = (python.is_file(), models::minilm()) else {
        tests::skip("the OpenAI client for Python or all-MiniLM-L6-v2");
        return;
    };
    let stack = Stack::start(tests::options(vec![models::demo(), minilm]))
        .await
        .unwrap();
    let readme = std::fs::read_to_string(tests::root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```python\n").unwrap();
    let (code, _) = rest.split_once("```").unwrap();
    let code = code.replace("http://127.0.0.1:8080/v1", &stack.base_url());
    let output = tokio::process::Command::new(python)
        .args(["-c", &code])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (sentence, cosine) = said.trim_end().rsplit_once('\n').unwrap();
    assert!(sentence.trim_end().ends_with('.'), "{said}");
    let cosine: f32 = cosine.parse().unwrap();
    assert!((cosine - 0.761).abs() < 0.002, "{said}");
    stack.stop().await;
}
