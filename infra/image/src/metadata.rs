//! What a builder says about an image. Nothing measures it: anybody can change it, and repair the checksum.

use serde_json::{Map, Value, json};

use crate::error::Error;

/// The metadata section: a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(Map<String, Value>);

/// What [`Metadata::new`] is made from; other readers insist on all of it.
#[derive(Debug, Clone)]
pub struct BuildInfo<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Version of the image.
    pub version: &'a str,
    /// RFC 3339. The same for every build of the same source, or the file is not reproducible: the commit's time, or the epoch.
    pub time: &'a str,
    /// Name of the program that packed it.
    pub tool: &'a str,
    /// Its version.
    pub tool_version: &'a str,
    /// Operating system inside.
    pub operating_system: &'a str,
    /// Version of the kernel inside.
    pub kernel_version: &'a str,
}

impl Metadata {
    /// In the official builder's form and order.
    pub fn new(info: &BuildInfo<'_>) -> Self {
        let mut map = Map::new();
        map.insert("ImageName".into(), info.name.into());
        map.insert("ImageVersion".into(), info.version.into());
        map.insert(
            "BuildMetadata".into(),
            json!({
                "BuildTime": info.time,
                "BuildTool": info.tool,
                "BuildToolVersion": info.tool_version,
                "OperatingSystem": info.operating_system,
                "KernelVersion": info.kernel_version,
            }),
        );
        map.insert("DockerInfo".into(), json!({}));
        map.insert("CustomMetadata".into(), json!({}));
        Self(map)
    }

    /// # Errors
    /// [`Error::Metadata`] for anything but one JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Error::Metadata(None)),
            Err(error) => Err(Error::Metadata(Some(error))),
        }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&self.0).map_err(|error| Error::Metadata(Some(error)))
    }

    /// The object.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// `ImageName`, where there is one.
    pub fn name(&self) -> Option<&str> {
        self.text("ImageName")
    }

    /// `ImageVersion`, where there is one.
    pub fn version(&self) -> Option<&str> {
        self.text("ImageVersion")
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).and_then(Value::as_str)
    }
}
