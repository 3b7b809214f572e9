use std::collections::BTreeSet;
use std::net::IpAddr;

use transport::Endpoint;

use super::{Config, EgressConfig, TARGET, TrafficLimits};

/// Two descriptors and two buffers each; a machine with more should run a second host.
const MAX_CONNECTIONS: usize = 65_536;
/// A week: longer waits are surely a slip of the pen.
const MAX_SECONDS: u64 = 7 * 24 * 3600;

/// What the types cannot say: `(field, what to write instead)`.
pub(super) fn check(config: &Config) -> Result<(), (String, String)> {
    check_limits("relay.limits", &config.relay.limits)?;
    let mut classes = BTreeSet::from(["relay", "models", "credentials", "heartbeat", "console"]);
    let mut listening = vec![
        ("control".to_owned(), &config.control),
        ("relay.listen".to_owned(), &config.relay.listen),
    ];
    for (i, egress) in config.egress.iter().enumerate() {
        let field = |name: &str| format!("egress[{i}].{name}");
        check_limits(&field("limits"), &egress.limits)?;
        check_class(&egress.class).map_err(|problem| (field("class"), problem))?;
        if !classes.insert(&egress.class) {
            let problem = format!(
                "{:?} is taken; each class has its own name and its own limits",
                egress.class
            );
            return Err((field("class"), problem));
        }
        check_target(egress).map_err(|problem| (field("target"), problem))?;
        check_private(&egress.listen).map_err(|problem| (field("listen"), problem))?;
        listening.push((field("listen"), &egress.listen));
    }
    if let Some(models) = &config.models {
        check_count("models.max_connections", models.max_connections)?;
        check_private(&models.listen).map_err(|problem| ("models.listen".to_owned(), problem))?;
        listening.push(("models.listen".to_owned(), &models.listen));
    }
    if let Some(credentials) = &config.credentials {
        let field = |name: &str| format!("credentials.{name}");
        check_private(&credentials.listen).map_err(|problem| (field("listen"), problem))?;
        match (&credentials.imds, &credentials.file) {
            (None, None) | (Some(_), Some(_)) => {
                let problem = "write one of imds = \"tcp://169.254.169.254:80\" and file = \"…\"";
                return Err(("credentials".to_owned(), problem.to_owned()));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        listening.push((field("listen"), &credentials.listen));
    }
    let boot = [
        ("boot.heartbeat", &config.boot.heartbeat),
        ("boot.console", &config.boot.console),
    ];
    for (field, endpoint) in boot {
        if let Some(endpoint) = endpoint {
            check_private(endpoint).map_err(|problem| (field.to_owned(), problem))?;
            listening.push((field.to_owned(), endpoint));
        }
    }
    check_seconds("limits.drain_s", config.limits.drain_s)?;

    for (i, (field, endpoint)) in listening.iter().enumerate() {
        if let Some((other, _)) = listening.iter().take(i).find(|(_, e)| e == endpoint) {
            let problem = format!("{endpoint} is already used by {other}; choose another");
            return Err((field.clone(), problem));
        }
    }
    Ok(())
}

fn check_limits(field: &str, limits: &TrafficLimits) -> Result<(), (String, String)> {
    check_count(&format!("{field}.max_connections"), limits.max_connections)?;
    check_seconds(&format!("{field}.idle_s"), limits.idle_s)?;
    check_seconds(&format!("{field}.lifetime_s"), limits.lifetime_s)
}

fn check_count(field: &str, value: usize) -> Result<(), (String, String)> {
    if (1..=MAX_CONNECTIONS).contains(&value) {
        return Ok(());
    }
    let problem = format!("{value} is out of range; write 1 to {MAX_CONNECTIONS}");
    Err((field.to_owned(), problem))
}

fn check_seconds(field: &str, value: u64) -> Result<(), (String, String)> {
    if (1..=MAX_SECONDS).contains(&value) {
        return Ok(());
    }
    let problem = format!("{value} is out of range; write seconds, 1 to {MAX_SECONDS}");
    Err((field.to_owned(), problem))
}

/// A class is a metric label: short, plain, and never from the network.
fn check_class(class: &str) -> Result<(), String> {
    let plain = class
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain && (1..=32).contains(&class.len()) {
        return Ok(());
    }
    Err(format!(
        "{class:?} is not a class; write 1 to 32 of a-z, 0-9 and -"
    ))
}

fn check_target(egress: &EgressConfig) -> Result<(), String> {
    let Endpoint::Tcp(target) = egress.endpoint()? else {
        return Ok(());
    };
    let unusable = target.ends_with(":0")
        || ip_of(&target).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast());
    if unusable {
        return Err(format!("{target:?} cannot be connected to; {TARGET}"));
    }
    Ok(())
}

/// What serves the enclave must not serve the network: egress would be an open proxy to its target.
fn check_private(listen: &Endpoint) -> Result<(), String> {
    let Endpoint::Tcp(address) = listen else {
        return Ok(());
    };
    if ip_of(address).is_some_and(|ip| ip.is_loopback()) {
        return Ok(());
    }
    Err(format!(
        "{listen} is open to the network; write vsock://, hvsock://, unix:// or a loopback address"
    ))
}

fn ip_of(address: &str) -> Option<IpAddr> {
    let (host, _) = address.rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
}
