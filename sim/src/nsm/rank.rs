//! A chain shaped like AWS's: names, lifetimes, path lengths and key usages as on real documents.
//!
//! | rank | lifetime | basic constraints | key usage |
//! |---|---|---|---|
//! | root | a year | CA | digitalSignature, certSign, crlSign; critical |
//! | regional | 20 days | CA, path length 2 | same |
//! | zonal | 6 days | CA, path length 1 | same |
//! | instance | 24 hours | CA, path length 0 | certSign; critical |
//! | leaf | 3 hours and 3 seconds, not backdated | not a CA | digitalSignature, nonRepudiation; not critical |

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DistinguishedName, DnType, IsCa,
    KeyUsagePurpose,
};

/// The parent instance in names and module ids.
pub const INSTANCE_ID: &str = "i-00000000000c1015e";

pub(super) const REGION: &str = "sim-1";

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The trust anchor.
    Root,
    /// Signed by the root.
    Regional,
    /// Signed by the regional certificate.
    Zonal,
    /// Signed by the zonal certificate; signs leaves.
    Instance,
}

impl Rank {
    /// For an authority issued at `now`, an hour backdated.
    pub(super) fn params(self, now: SystemTime) -> CertificateParams {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};

        let signs_all = vec![DigitalSignature, KeyCertSign, CrlSign];
        let (common_name, lifetime, path_length, key_usages) = match self {
            Self::Root => (
                "cloister.sim.nitro-enclaves".to_owned(),
                365 * DAY,
                None,
                signs_all,
            ),
            Self::Regional => (
                format!("c1015e.{REGION}.sim.nitro-enclaves"),
                20 * DAY,
                Some(2),
                signs_all,
            ),
            Self::Zonal => (
                format!("c1015e.zonal.{REGION}.sim.nitro-enclaves"),
                6 * DAY,
                Some(1),
                signs_all,
            ),
            Self::Instance => (
                format!("{INSTANCE_ID}.{REGION}.sim.nitro-enclaves"),
                DAY,
                Some(0),
                vec![KeyCertSign],
            ),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&common_name);
        params.not_before = (now - HOUR).into();
        params.not_after = (now - HOUR + lifetime).into();
        params.is_ca = IsCa::Ca(path_length.map_or(
            BasicConstraints::Unconstrained,
            BasicConstraints::Constrained,
        ));
        params.key_usages = key_usages;
        if self != Self::Root {
            params.use_authority_key_identifier_extension = true;
        }
        // Real regional and zonal certificates name a list that verifiers are told not to use.
        if matches!(self, Self::Regional | Self::Zonal) {
            params.crl_distribution_points = vec![CrlDistributionPoint {
                uris: vec![format!("http://crl.{REGION}.invalid/crl/unused.crl")],
            }];
        }
        params
    }
}

pub(super) fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "ZZ");
    name.push(
        DnType::OrganizationName,
        "Cloister simulation, proves nothing",
    );
    name.push(DnType::CommonName, common_name);
    name
}
