use std::time::UNIX_EPOCH;

use super::*;

fn leaf(not_before: u64, not_after: u64) -> Leaf {
    Leaf {
        id: SpiffeId::new("spiffe://cloister.dev/enclave").unwrap(),
        serial: "01".to_owned(),
        not_before: UNIX_EPOCH + Duration::from_secs(not_before),
        not_after: UNIX_EPOCH + Duration::from_secs(not_after),
        spki_der: Vec::new(),
        sha256: [0; 32],
    }
}

#[test]
fn renewal_begins_at_half_life_and_at_once_after_it() {
    let at =
        |now| until_half_life(&leaf(1000, 2000), UNIX_EPOCH + Duration::from_secs(now)).as_secs();
    assert_eq!(at(1000), 500);
    assert_eq!(at(1400), 100);
    assert_eq!(at(1500), 0);
    assert_eq!(at(1700), 0);
    assert_eq!(at(9999), 0);
}

/// Refuses a few times, then issues.
struct Issuer {
    root: identity::issue::Authority,
    refusals: std::sync::atomic::AtomicU32,
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

impl KeyBroker for Issuer {
    fn issue_svid<'a>(&'a self, id: &'a SpiffeId) -> kbs_client::BrokerFuture<'a, identity::Svid> {
        Box::pin(async move {
            use std::sync::atomic::Ordering::SeqCst;
            if self
                .refusals
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_ok()
            {
                return Err(kbs_client::Error::Malformed {
                    what: "issued chain",
                });
            }
            Ok(
                identity::issue::new_svid(&self.root, id, Duration::from_secs(3600), start())
                    .unwrap(),
            )
        })
    }

    fn data_key<'a>(&'a self, _id: &'a str) -> kbs_client::BrokerFuture<'a, kbs_client::KeyBytes> {
        Box::pin(async { Err(kbs_client::Error::Request("this issuer has no keys")) })
    }
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again_until_a_new_identity_is_in_place() {
    let domain = identity::TrustDomain::new("cloister.dev").unwrap();
    let root =
        identity::issue::Authority::generate_root(&domain, start(), Duration::from_secs(86_400))
            .unwrap();
    let id = SpiffeId::new("spiffe://cloister.dev/enclave").unwrap();
    let credentials = Credentials::new();
    credentials
        .install(identity::issue::new_svid(&root, &id, Duration::from_secs(60), start()).unwrap());
    let before = credentials.leaf().unwrap();
    let metrics = Metrics::new().unwrap();
    let issuer = Issuer {
        root,
        refusals: 1.into(),
    };
    renew(&issuer, &id, &credentials, &metrics).await;
    let after = credentials.leaf().unwrap();
    assert_ne!(
        (&before.serial, &before.spki_der),
        (&after.serial, &after.spki_der)
    );
    let text = metrics.render();
    assert!(
        text.contains(r#"cloister_svid_renewals_total{outcome="failed"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"cloister_svid_renewals_total{outcome="done"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn an_identity_that_comes_past_its_middle_does_not_make_the_broker_be_asked_without_pause() {
    let domain = identity::TrustDomain::new("cloister.dev").unwrap();
    let root =
        identity::issue::Authority::generate_root(&domain, start(), Duration::from_secs(86_400))
            .unwrap();
    let id = SpiffeId::new("spiffe://cloister.dev/enclave").unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let keep = keep(
        Arc::new(Issuer {
            root,
            refusals: 0.into(),
        }),
        id,
        Arc::new(Credentials::new()),
        Arc::clone(&metrics),
        Arc::new(|| start() + Duration::from_secs(3000)),
    );
    let ended = tokio::time::timeout(Duration::from_millis(2500), keep).await;
    assert!(ended.is_err());
    let text = metrics.render();
    let renewals = text
        .lines()
        .find_map(|line| line.strip_prefix(r#"cloister_svid_renewals_total{outcome="done"} "#))
        .unwrap();
    let renewals: u32 = renewals.parse().unwrap();
    assert!((1..=3).contains(&renewals), "{renewals}");
}
