//! SLSA v1 provenance: how, from what and by whom an image was built.

use sealed_model::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::build::{Build, commit};
use crate::statement::Statement;
use crate::{Artifact, Error, canonical, purl};

/// SLSA provenance v1 (slsa.dev/spec/v1.0/provenance) as a predicate.
pub const SLSA_PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters mean: `docs/supply-chain.md`, "Build type".
pub const BUILD_TYPE: &str = "urn:x-cloister:build:enclave-image:v1";

/// What a builder says of an image, in the words of SLSA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BuildDefinition {
    build_type: String,
    external_parameters: Parameters,
    internal_parameters: Internal,
    resolved_dependencies: Vec<Resource>,
}

/// What whoever asked for the build chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    name: String,
    version: String,
    command_line: String,
    config: Digest,
    model_policies: Vec<Resource>,
}

/// What the builder chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Internal {
    target: String,
    /// A decimal number; text, so that no reader rounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_date_epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel_config: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RunDetails {
    builder: Builder,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Builder {
    id: String,
    version: Versions,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    cloister: String,
}

/// in-toto ResourceDescriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Digest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    git_commit: Option<String>,
}

/// The statement, in-toto v1, that `build` made its image and `also`, as the bill of materials.
/// The same input gives the same bytes. It has to be signed: [`crate::Envelope::sign`].
///
/// # Errors
/// [`Error::Input`] where `build` is not in order.
pub fn provenance(build: &Build, also: &[Artifact]) -> Result<Vec<u8>, Error> {
    build.check()?;
    let predicate = Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.into(),
            external_parameters: Parameters {
                name: build.name.clone(),
                version: build.version.clone(),
                command_line: build.command_line.clone(),
                config: Digest::sha256(build.config_sha256),
                model_policies: build.model_policies.iter().map(Resource::file).collect(),
            },
            internal_parameters: Internal {
                target: build.target.clone(),
                source_date_epoch: build.source_date_epoch.map(|seconds| seconds.to_string()),
                kernel_config: build.kernel.config_sha256.map(Digest::sha256),
            },
            resolved_dependencies: dependencies(build),
        },
        run_details: RunDetails {
            builder: Builder {
                id: build.builder.clone(),
                version: Versions {
                    cloister: env!("CARGO_PKG_VERSION").into(),
                },
            },
        },
    };
    let predicate = serde_json::to_value(&predicate)
        .map_err(|_own| Error::Internal("a provenance of ours has a JSON form"))?;
    let subjects = [std::slice::from_ref(&build.image), also].concat();
    Statement::new(&subjects, SLSA_PROVENANCE, predicate)?.to_bytes()
}

impl Provenance {
    /// What a verified statement says, if it is a provenance of this build type.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn of(statement: &Statement) -> Result<Self, Error> {
        let predicate = statement.expect(SLSA_PROVENANCE)?;
        let build_type = predicate
            .pointer("/buildDefinition/buildType")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        // First, for of another build type nothing else is known.
        if build_type != BUILD_TYPE {
            return Err(Error::Unexpected {
                what: "build type",
                expected: BUILD_TYPE.into(),
                found: canonical::shown(build_type),
            });
        }
        let provenance: Self = serde_json::from_value(predicate.clone()).map_err(|error| {
            Error::malformed("provenance", canonical::shown(&error.to_string()))
        })?;
        let at = provenance.commit()?;
        commit("source.commit", at)?;
        provenance.config_sha256()?;
        Ok(provenance)
    }

    pub fn name(&self) -> &str {
        &self.build_definition.external_parameters.name
    }

    pub fn version(&self) -> &str {
        &self.build_definition.external_parameters.version
    }

    pub fn builder(&self) -> &str {
        &self.run_details.builder.id
    }

    /// The source's commit.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it names none.
    pub fn commit(&self) -> Result<&str, Error> {
        self.resource("source")
            .and_then(|digest| digest.git_commit.as_deref())
            .ok_or_else(|| Error::malformed("provenance", "does not name the source's commit"))
    }

    /// The enclave's configuration.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it names none.
    pub fn config_sha256(&self) -> Result<Sha256Digest, Error> {
        self.build_definition
            .external_parameters
            .config
            .sha256
            .ok_or_else(|| Error::malformed("provenance", "does not name the configuration"))
    }

    fn resource(&self, name: &str) -> Option<&Digest> {
        self.build_definition
            .resolved_dependencies
            .iter()
            .find(|resource| resource.name == name)
            .and_then(|resource| resource.digest.as_ref())
    }
}

fn dependencies(build: &Build) -> Vec<Resource> {
    let mut resources = vec![
        Resource {
            name: "source".into(),
            uri: build.source.uri.clone(),
            digest: Some(Digest {
                sha256: None,
                git_commit: Some(build.source.commit.clone()),
            }),
        },
        Resource {
            name: "Cargo.lock".into(),
            uri: None,
            digest: Some(Digest::sha256(build.source.cargo_lock_sha256)),
        },
        Resource {
            name: "kernel-source".into(),
            uri: Some(build.kernel.source_uri.clone()),
            digest: Some(Digest::sha256(build.kernel.source_sha256)),
        },
    ];
    for tool in build.tools.iter().chain(&build.libraries) {
        resources.push(Resource {
            name: tool.name.clone(),
            uri: Some(purl::generic(&tool.name, &tool.version)),
            digest: None,
        });
    }
    resources
}

impl Resource {
    fn file(artifact: &Artifact) -> Self {
        Self {
            name: artifact.name.clone(),
            uri: None,
            digest: Some(Digest::sha256(artifact.sha256)),
        }
    }
}

impl Digest {
    fn sha256(digest: Sha256Digest) -> Self {
        Self {
            sha256: Some(digest),
            git_commit: None,
        }
    }
}
