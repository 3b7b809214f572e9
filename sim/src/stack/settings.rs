//! The configuration files of a run, as an operator would write them.

use attestation::{Pcrs, Sha256Digest};
use serde_json::{Map, Value, json};

use super::keys::{RunKeys, Sealed};
use super::kms::RunKms;
use super::tee::{self, Endpoints, Tee};
use super::{BROKER_ID, ENCLAVE_ID, Error, INSTANCE_ID, Layout, Options, ROLE_ARN, TRUST_DOMAIN};
use crate::nsm;

/// What the enclave file measures to.
pub(super) struct Written {
    pub(super) pcrs: Pcrs,
    pub(super) config_digest: Sha256Digest,
}

/// Who may do what: our callers, what this run offers.
const POLICY: &str = r#"permit (
    principal,
    action in [Action::"chat", Action::"embed", Action::"rerank", Action::"models", Action::"attest"],
    resource
) when { principal.trust_domain == "cloister.dev" };
"#;

pub(super) fn write(
    layout: &Layout,
    options: &mut Options,
    keys: &RunKeys,
    sealed: &[Sealed],
    kms: Option<&RunKms>,
    root_pem: &str,
) -> Result<Written, Error> {
    let root = layout.write("nitro-root.pem", root_pem.as_bytes())?;
    layout.write("kbs.pem", keys.broker_chain_pem.as_bytes())?;
    layout.write("kbs.key", keys.broker_key_pem.as_bytes())?;
    layout.write("issuer.pem", keys.issuer.cert_pem().as_bytes())?;
    let issuer_key = keys
        .issuer
        .key_pem()
        .map_err(|e| Error::Keys(e.to_string()))?;
    layout.write("issuer.key", issuer_key.as_bytes())?;
    layout.write("master.key", keys.master_hex.as_bytes())?;

    let policy = options.policy.as_deref().unwrap_or(POLICY);
    let publisher = keys.publisher.public()?.to_pem();
    let at = options.tee.endpoints(layout);
    let mut enclave = enclave(&at, keys, sealed, kms, &publisher, policy);
    if options.reload
        && let Some(settings) = enclave.as_object_mut()
    {
        settings.insert("reload".to_owned(), Value::Bool(true));
    }
    if let (Tee::Machine(_), Some(settings)) = (&options.tee, enclave.as_object_mut()) {
        // Without KVM the emulated machine has no hypervisor's clock.
        let sources = json!(["kvm-clock", "tsc", "tsc-early", "refined-jiffies"]);
        settings.insert("clock_sources".to_owned(), sources);
    }
    if let Some(amend) = options.amend.take() {
        amend(&mut enclave);
    }
    let enclave_path = layout.write("enclave.toml", toml_text(&enclave)?.as_bytes())?;
    let measured =
        std::fs::read(&enclave_path).map_err(Error::io(enclave_path.display().to_string()))?;
    let config_digest = Sha256Digest::of(&measured);
    let pcrs = match &options.tee {
        Tee::Simulated => nsm::measure(&options.exe, &measured, ROLE_ARN, INSTANCE_ID)
            .map_err(Error::io("the enclave could not be measured"))?,
        Tee::Machine(machine) => tee::prepare(layout, machine, &measured)?,
    };
    let image = image(&pcrs);
    if let Some(kms) = kms {
        kms.write(layout, root_pem, &image)?;
    }

    layout.write("policy.rego", rego(&image, sealed).as_bytes())?;
    let kbs = json!({
        "listen": format!("tcp://127.0.0.1:{}", layout.broker),
        "control": layout.control("kbs"),
        "database": "kbs.sqlite",
        "master_key_file": "master.key",
        "trust_anchor": root.display().to_string(),
        "policy": "policy.rego",
        "tls": {"chain": "kbs.pem", "key": "kbs.key"},
        "issuer": {
            "chain": "issuer.pem",
            "key": "issuer.key",
            "ttl_s": 3600,
            "map": [{"spiffe_id": ENCLAVE_ID, "images": [image]}],
        },
    });
    layout.write("kbs.toml", toml_text(&kbs)?.as_bytes())?;

    let relay_dials = options
        .relay_dials
        .clone()
        .unwrap_or_else(|| at.host_dials.clone());
    // A machine's boot is heard by the host; a process has no such thing.
    let boot = match at.boot {
        Some([heartbeat, console]) => json!({"heartbeat": heartbeat, "console": console}),
        None => json!({}),
    };
    let mut host = json!({
        "control": layout.control("host"),
        "enclave_control": layout.control("enclave"),
        "relay": {"listen": format!("tcp://127.0.0.1:{}", layout.relay), "enclave": relay_dials},
        "egress": [{
            "class": "key-release",
            "listen": at.host_broker,
            "target": format!("127.0.0.1:{}", layout.broker),
        }],
        "models": {
            "listen": at.host_models,
            "root": layout.packages().display().to_string(),
        },
        "boot": boot,
    });
    if kms.is_some() {
        let egress = json!({
            "class": "kms",
            "listen": at.host_kms,
            "target": format!("127.0.0.1:{}", layout.kms),
        });
        if let Some(Value::Array(list)) = host.get_mut("egress") {
            list.push(egress);
        }
        let credentials = json!({"listen": at.host_credentials, "file": "aws.json"});
        add(&mut host, "credentials", credentials);
    }
    layout.write("host.toml", toml_text(&host)?.as_bytes())?;

    let gateway_dials = options
        .gateway_dials
        .clone()
        .unwrap_or_else(|| format!("tcp://127.0.0.1:{}", layout.relay));
    let signer = keys.publisher.public()?.id();
    let models: Vec<Value> = sealed
        .iter()
        .map(|s| {
            json!({
                "name": s.name,
                "min_epoch": s.epoch,
                "manifest_sha256": s.manifest_sha256.to_string(),
                "publishers": [signer],
            })
        })
        .collect();
    let gateway = json!({
        "listen": format!("127.0.0.1:{}", layout.port),
        "enclave": gateway_dials,
        "workload_api": layout.unix("workload.sock"),
        "policy": "gateway-policy.toml",
        "policy_history": "gateway-policy.history.json",
    });
    layout.write("gateway.toml", toml_text(&gateway)?.as_bytes())?;
    let policy = json!({
        "format": gateway::policy::FORMAT,
        "serial": 1,
        "server_ids": [ENCLAVE_ID],
        "trust_anchor": root.display().to_string(),
        "images": [image],
        "config_digests": [config_digest.to_string()],
        "max_age_s": 300,
        "reattest_s": 600,
        "models": models,
    });
    layout.write("gateway-policy.toml", toml_text(&policy)?.as_bytes())?;
    Ok(Written {
        pcrs,
        config_digest,
    })
}

/// The one measured file: everything that decides about security is in it.
fn enclave(
    at: &Endpoints,
    keys: &RunKeys,
    sealed: &[Sealed],
    kms: Option<&RunKms>,
    publisher: &str,
    policy: &str,
) -> Value {
    let models: Vec<Value> = sealed
        .iter()
        .map(|s| {
            let mut model = json!({
                "name": s.name,
                "source": at.models,
                "package": s.name,
                "publishers": [publisher],
                "min_epoch": s.epoch,
            });
            if let Some(kms) = kms {
                add(&mut model, "kms_key_arn", kms.arn.as_str().into());
            }
            model
        })
        .collect();
    let mut file = json!({
        "spiffe_id": ENCLAVE_ID,
        "listen": {
            "serve": at.serve,
            "control": at.control,
        },
        "trust": {
            "domain": TRUST_DOMAIN,
            "bundle": keys.root.cert_pem(),
            "callers": [TRUST_DOMAIN],
        },
        "broker": {"endpoint": at.broker, "spiffe_id": BROKER_ID},
        "authorization": {"policy": policy},
        // One gateway speaks for everything on this machine; the default is meant for one of many callers.
        "limits": {"requests_per_minute": 60_000, "burst": 6_000},
        "models": models,
    });
    if let Some(kms) = kms {
        let kms = json!({
            "endpoint": at.kms,
            "credentials": at.credentials,
            "roots": kms.tls.root_pem,
        });
        add(&mut file, "kms", kms);
    }
    file
}

fn add(table: &mut Value, name: &str, value: Value) {
    if let Value::Object(table) = table {
        table.insert(name.to_owned(), value);
    }
}

/// What decides: the image, its kernel and its application (PCR0-2).
fn image(pcrs: &Pcrs) -> Map<String, Value> {
    pcrs.iter()
        .filter(|(index, _)| **index <= 2)
        .map(|(index, value)| (index.to_string(), Value::from(value.to_string())))
        .collect()
}

/// The owner's release policy: these measurements, these keys, nothing else.
fn rego(image: &Map<String, Value>, sealed: &[Sealed]) -> String {
    let mut text = String::from(
        "package policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if {\n\tdata.plugin == \"resource\"\n",
    );
    for (index, value) in image {
        text.push_str(&format!("\tinput.nitro.pcrs[\"{index}\"] == {value}\n"));
    }
    let ids: Vec<_> = sealed.iter().map(|s| format!("\"{}\"", s.key_id)).collect();
    text.push_str(&format!(
        "\tconcat(\"/\", data[\"resource-path\"]) in {{{}}}\n}}\n",
        ids.join(", ")
    ));
    text
}

pub(super) fn toml_text(value: &Value) -> Result<String, Error> {
    toml::to_string_pretty(value).map_err(|e| Error::Keys(e.to_string()))
}
