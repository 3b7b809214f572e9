//! AWS credentials for the enclave: from an instance metadata service that behaves as version 2 does, and from a file.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use transport::Endpoint;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "AQAEAExampleMetadataToken==";

/// Runs a host with this `[credentials]` and asks it once; status and body.
async fn asked(dir: &Path, credentials: &str, request: &str) -> (u16, String) {
    let at = dir.display();
    let text = format!(
        "control = \"unix://{at}/control\"\nenclave_control = \"unix://{at}/ec\"\n[relay]\nlisten = \"unix://{at}/relay\"\n\
         enclave = \"unix://{at}/enclave\"\n[credentials]\nlisten = \"unix://{at}/credentials\"\n{credentials}\n[limits]\ndrain_s = 1\n"
    );
    let config = Config::parse(&text, &dir.join("host.toml")).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(host::run(config, async {
        stopped.await.ok();
    }));
    let endpoint = Endpoint::Unix(dir.join("credentials"));
    let mut stream = timeout(Duration::from_secs(5), async {
        loop {
            match endpoint.connect().await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
    .unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// A metadata service of version 2: without its token it says 401. Gives its endpoint and the requests it got.
async fn imds(role: &'static str, code: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let line = head.lines().next().unwrap().to_owned();
            let token = head.contains(&format!(
                "x-aws-ec2-metadata-token: {}",
                TOKEN.to_lowercase()
            ));
            let credentials = format!(
                r#"{{"Code":"{code}","LastUpdated":"2026-11-25T12:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"{SECRET}","Token":"session","Expiration":"2026-11-25T18:00:00Z"}}"#
            );
            let base = "/latest/meta-data/iam/security-credentials/";
            let (status, body) = match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["put", "/latest/api/token", _] if head.contains("token-ttl-seconds: 60") => {
                    ("200 OK", TOKEN)
                }
                ["get", path, _] if token && *path == base => ("200 OK", role),
                ["get", path, _] if token && *path == format!("{base}{role}") => {
                    ("200 OK", credentials.as_str())
                }
                _ if !token => ("401 Unauthorized", ""),
                _ => ("404 Not Found", ""),
            };
            log.lock().unwrap().push(format!("{line} {status}"));
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (endpoint, seen)
}

#[tokio::test]
async fn an_instances_role_is_handed_out_as_aws_tools_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let (endpoint, seen) = imds("cloister-host", "Success").await;
    let (status, body) = asked(
        dir.path(),
        &format!("imds = \"{endpoint}\""),
        "GET /credentials",
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        format!(
            r#"{{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"{SECRET}","SessionToken":"session","Expiration":"2026-11-25T18:00:00Z"}}"#
        )
    );
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.iter().all(|line| line.ends_with("200 OK")), "{seen:?}");
}

#[tokio::test]
async fn an_instance_without_a_usable_role_has_nothing_to_hand_out() {
    for (role, code) in [
        ("", "Success"),
        ("../../secret", "Success"),
        ("two\nroles", "Success"),
        ("host", "Failed"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (endpoint, _) = imds(role, code).await;
        let answer = asked(
            dir.path(),
            &format!("imds = \"{endpoint}\""),
            "GET /credentials",
        )
        .await;
        assert_eq!(answer, (503, String::new()), "{role:?} {code}");
    }
}

#[tokio::test]
async fn a_file_is_handed_out_only_when_nobody_else_can_read_it_and_it_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("aws.json");
    let good =
        format!(r#"{{"Version":1,"AccessKeyId":"AKIAEXAMPLE","SecretAccessKey":"{SECRET}"}}"#);
    let write = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let ask = async || asked(dir.path(), "file = \"aws.json\"", "GET /credentials").await;
    write(&good, 0o600);
    assert_eq!(ask().await, (200, good.clone()));
    write(&good, 0o640);
    assert_eq!(ask().await, (503, String::new()));
    for bad in [
        good.replace("\"Version\":1", "\"Version\":2"),
        "{}".to_owned(),
        " ".repeat(20_000) + &good,
    ] {
        write(&bad, 0o600);
        assert_eq!(ask().await, (503, String::new()));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask().await, (503, String::new()));
}

#[tokio::test]
async fn nothing_else_is_served_there() {
    let dir = tempfile::tempdir().unwrap();
    for (request, status) in [
        ("GET /", 404),
        ("GET /credentials/x", 404),
        ("POST /credentials", 405),
        ("PUT /credentials", 405),
    ] {
        let answer = asked(dir.path(), "file = \"aws.json\"", request).await;
        assert_eq!(answer, (status, String::new()), "{request}");
    }
}

#[test]
fn a_source_is_one_of_two_and_the_listener_is_private() {
    let refused = |credentials: &str| {
        let text = format!(
            "control = \"unix:///c\"\nenclave_control = \"unix:///e\"\n[relay]\nlisten = \"unix:///r\"\nenclave = \"unix:///n\"\n\
             [credentials]\n{credentials}\n"
        );
        Config::parse(&text, Path::new("host.toml"))
            .err()
            .unwrap()
            .to_string()
    };
    let listen = "listen = \"vsock://any:8445\"";
    let both = format!("{listen}\nimds = \"tcp://169.254.169.254:80\"\nfile = \"x\"");
    assert!(refused(listen).contains("credentials: write one of imds"));
    assert!(refused(&both).contains("credentials: write one of imds"));
    assert!(refused("listen = \"tcp://0.0.0.0:1\"\nfile = \"x\"").contains("credentials.listen"));
}
