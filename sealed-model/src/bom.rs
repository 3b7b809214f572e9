//! `bom.cdx.json`: a CycloneDX 1.6 (ECMA-424) bill of materials of a model. Nobody is asked: what it says comes from the model's
//! own card (`README.md`), `config.json` and weights, and what they do not say is left out.

mod card;
mod licence;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{Error, FileEntry, Sha256Digest, SignedModel, gguf, json as strict};

pub use self::card::front_matter;

const MODEL: &str = "model";

/// What a model directory says of its model.
#[derive(Default)]
pub(crate) struct Facts {
    /// `config.json`.
    pub(crate) config: Option<Value>,
    /// The front matter of `README.md`.
    pub(crate) card: BTreeMap<String, Vec<String>>,
    gguf: Option<gguf::Summary>,
    /// Elements of all weights by type.
    elements: BTreeMap<String, u64>,
}

impl Facts {
    pub(crate) fn count(&mut self, elements: &BTreeMap<impl AsRef<str>, u64>) {
        for (kind, count) in elements {
            let total = self.elements.entry(kind.as_ref().to_owned()).or_default();
            *total = total.saturating_add(*count);
        }
    }

    /// The first of several files, which are parts of one model or quantizations of it, speaks for it.
    pub(crate) fn gguf(&mut self, summary: gguf::Summary) {
        self.count(&summary.elements);
        self.gguf.get_or_insert(summary);
    }

    fn card(&self, key: &str) -> Option<&str> {
        self.card_list(key).first().map(String::as_str)
    }

    fn card_list(&self, key: &str) -> &[String] {
        self.card.get(key).map_or(&[], Vec::as_slice)
    }

    fn config(&self, pointer: &str) -> Option<String> {
        match self.config.as_ref()?.pointer(pointer)? {
            Value::String(text) if !text.is_empty() => Some(strict::shown(text)),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn general(&self, key: &str) -> Option<String> {
        let strings = &self.gguf.as_ref()?.strings;
        let text = strings.get(&format!("general.{key}"))?;
        Some(strict::shown(text)).filter(|text| !text.is_empty())
    }

    /// For example `gptq, 4 bit` or `Q4_K_M`.
    fn quantization(&self) -> Option<String> {
        if let Some(method) = self.config("/quantization_config/quant_method") {
            let bits = self.config("/quantization_config/bits");
            return Some(match bits {
                Some(bits) => format!("{method}, {bits} bit"),
                None => method,
            });
        }
        gguf::file_type_name(self.gguf.as_ref()?.file_type?).map(Into::into)
    }

    fn base_models(&self) -> Vec<String> {
        let listed = self.card_list("base_model");
        if !listed.is_empty() {
            return listed.to_vec();
        }
        let base = |index: usize| {
            let name = self.general(&format!("base_model.{index}.name"))?;
            Some(
                match self.general(&format!("base_model.{index}.organization")) {
                    Some(organization) => format!("{organization}/{name}"),
                    None => name,
                },
            )
        };
        (0..16).map_while(base).collect()
    }

    fn licence(&self) -> Option<Value> {
        let declared = self.card("license").map(Into::into);
        let name = declared.or_else(|| self.general("license"))?;
        // `license: other` stands for a name and a link beside it.
        let given = self.card("license_name").filter(|_| name == "other");
        let mut licence = match licence::spdx(&name) {
            Some(id) => json!({"id": id}),
            None => json!({"name": given.unwrap_or(&name)}),
        };
        let link = self.card("license_link");
        if let Some(link) = link.filter(|link| link.starts_with("https://") && is_url(link)) {
            insert(&mut licence, "url", link);
        }
        insert(&mut licence, "acknowledgement", "declared");
        Some(licence)
    }

    fn model_card(&self) -> Value {
        let mut parameters = json!({});
        let task = self.card("pipeline_tag");
        if let Some(task) = task {
            insert(&mut parameters, "task", task);
            let (from, to) = formats(task);
            insert(&mut parameters, "inputs", json!([{"format": from}]));
            insert(&mut parameters, "outputs", json!([{"format": to}]));
        }
        let family = self.config("/model_type");
        if let Some(family) = family.or_else(|| self.general("architecture")) {
            insert(&mut parameters, "architectureFamily", family);
        }
        if let Some(architecture) = self.config("/architectures/0") {
            insert(&mut parameters, "modelArchitecture", architecture);
        }
        let datasets = self.card_list("datasets");
        if !datasets.is_empty() {
            let data = |name: &String| json!({"type": "dataset", "name": name});
            let datasets: Vec<_> = datasets.iter().map(data).collect();
            insert(&mut parameters, "datasets", datasets);
        }
        let mut properties = Vec::new();
        let mut property = |name: &str, value: String| {
            properties.push(json!({"name": format!("cloister:{name}"), "value": value}));
        };
        for language in self.card_list("language") {
            property("language", language.clone());
        }
        if let Some(library) = self.card("library_name") {
            property("library", library.into());
        }
        let elements = self
            .elements
            .values()
            .fold(0u64, |n, m| n.saturating_add(*m));
        property("parameters", elements.to_string());
        for (kind, count) in &self.elements {
            property(&format!("parameters:{kind}"), count.to_string());
        }
        if let Some(quantization) = self.quantization() {
            property("quantization", quantization);
        }
        json!({"modelParameters": parameters, "properties": properties})
    }
}

/// The bill of materials of the model whose files are `files`. The same input gives the same bytes; the serial number is a
/// digest of everything else. It has no epoch, so it stays true when a package is rotated.
pub(crate) fn bom(
    name: &str,
    created: OffsetDateTime,
    facts: &Facts,
    model: &SignedModel,
    files: &[FileEntry],
) -> Result<Vec<u8>, Error> {
    let mut component = json!({
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": name,
        // The digest that `model.sig` is about.
        "hashes": [sha256(model.digest())],
        "modelCard": facts.model_card(),
    });
    if let Some(licence) = facts.licence() {
        insert(&mut component, "licenses", json!([{"license": licence}]));
    }
    let ancestors: Vec<_> = facts.base_models().iter().map(|m| ancestor(m)).collect();
    if !ancestors.is_empty() {
        insert(&mut component, "pedigree", json!({"ancestors": ancestors}));
    }
    let files_of = |entry: &FileEntry| {
        json!({
            "type": "file",
            "bom-ref": file_ref(entry),
            "name": entry.path,
            "hashes": [sha256(&entry.sha256)],
            "properties": [{"name": "cloister:size", "value": entry.size.to_string()}],
        })
    };
    let mut dependencies: Vec<_> = files.iter().map(|e| json!({"ref": file_ref(e)})).collect();
    let all: Vec<_> = files.iter().map(file_ref).collect();
    dependencies.push(json!({"ref": MODEL, "dependsOn": all}));
    let timestamp = created
        .to_offset(time::UtcOffset::UTC)
        .truncate_to_second()
        .format(&Rfc3339)
        .ok()
        .ok_or(Error::Internal(
            "a date before the year 10000 has an RFC 3339 form",
        ))?;
    let mut bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp,
            "tools": {"components": [{
                "type": "application",
                "name": "cloister",
                "version": env!("CARGO_PKG_VERSION"),
            }]},
            "component": component,
        },
        "components": files.iter().map(files_of).collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    let serial = Sha256Digest::of(&strict::to_vec(&bom)?).to_uuid_urn();
    insert(&mut bom, "serialNumber", serial);
    strict::to_vec(&bom)
}

fn ancestor(name: &str) -> Value {
    let mut ancestor = json!({"type": "machine-learning-model", "name": name});
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    // The package URL type of models on Hugging Face.
    if let Some((organization, model)) = name.split_once('/')
        && plain(organization)
        && plain(model)
    {
        insert(
            &mut ancestor,
            "purl",
            format!("pkg:huggingface/{organization}/{model}"),
        );
    }
    ancestor
}

/// What goes in and what comes out, by task.
fn formats(task: &str) -> (&'static str, &'static str) {
    match task {
        "feature-extraction" | "sentence-similarity" => ("text", "embedding"),
        "text-classification" | "text-ranking" | "zero-shot-classification" => ("text", "score"),
        "image-text-to-text" => ("text and images", "text"),
        "automatic-speech-recognition" => ("audio", "text"),
        _ => ("text", "text"),
    }
}

fn is_url(text: &str) -> bool {
    text.bytes().all(|b| {
        b.is_ascii_graphic()
            && !matches!(
                b,
                b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
            )
    })
}

fn file_ref(entry: &FileEntry) -> String {
    format!("file:{}", entry.path)
}

fn sha256(digest: &Sha256Digest) -> Value {
    json!({"alg": "SHA-256", "content": digest})
}

fn insert(object: &mut Value, key: &str, value: impl Into<Value>) {
    object
        .as_object_mut()
        .unwrap_or(&mut Map::new())
        .insert(key.into(), value.into());
}

#[cfg(test)]
mod tests;
