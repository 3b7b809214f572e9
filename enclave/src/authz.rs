//! Who may do what. The measured Cedar policy decides; its answer is a [`Permit`], which only this module can make
//! and which the models require. What the policy does not permit is denied, and so is everything when a policy
//! cannot be evaluated: Cedar itself would skip a `forbid` that fails, and let the request through.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityAttrEvaluationError, EntityId,
    EntityTypeName, EntityUid, PolicySet, Request, RestrictedExpression, Schema, ValidationMode,
    Validator,
};
use identity::SpiffeId;

#[cfg(test)]
mod tests;

/// Callers of one enclave, some 100 bytes each.
const MAX_PERMITTED: usize = 1024;

const SCHEMA: &str = include_str!("authz/schema.cedarschema");

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    #[error("is not a Cedar policy: {0}")]
    Syntax(String),
    #[error("does not fit the schema: {0}")]
    Schema(String),
    #[error("is empty, so nobody could be served; write at least one permit")]
    Empty,
    #[error("holds a template, which nothing would ever link; write out the policy")]
    Template,
    /// A fault of this program: the embedded schema is not readable.
    #[error("cannot be checked: {0}")]
    Internal(String),
}

/// The policy's answer was no, or there was no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    pub action: &'static str,
}

/// What a permit allows; a type per action, so that a permit to embed cannot be used to chat.
pub trait Action {
    const NAME: &'static str;
}

macro_rules! actions {
    ($($(#[$doc:meta])* $type:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        pub enum $type {}
        impl Action for $type {
            const NAME: &'static str = $name;
        }
    )*};
}

actions! {
    /// Generate text.
    Chat = "chat";
    /// Embed text.
    Embed = "embed";
    /// Score documents for a query.
    Rerank = "rerank";
    /// See that a model is there.
    List = "models";
    /// Ask for evidence.
    Attest = "attest";
}

/// One caller may do one thing `A` to one resource. Only [`Authorization`] makes it; it cannot be copied.
pub struct Permit<A> {
    resource: String,
    action: PhantomData<fn() -> A>,
}

impl<A> Permit<A> {
    /// The model (or the enclave's SPIFFE ID) that the permit is for.
    pub fn resource(&self) -> &str {
        &self.resource
    }
}

/// The facts about a model that a policy may look at.
#[derive(Clone, Copy)]
pub struct ModelFacts<'a> {
    pub name: &'a str,
    /// "chat", "embedding" or "rerank".
    pub kind: &'static str,
    pub epoch: u64,
}

/// The measured policy, ready to decide.
pub struct Authorization {
    authorizer: Authorizer,
    policies: PolicySet,
    schema: Schema,
    types: Types,
    /// Callers and enclaves whose question for evidence was permitted. It has no context and the policy never changes, so the answer
    /// does not either; to ask again takes a tenth of a millisecond, which every new connection would pay.
    permitted: Mutex<HashSet<(String, String)>>,
}

struct Types {
    caller: EntityTypeName,
    model: EntityTypeName,
    enclave: EntityTypeName,
    action: EntityTypeName,
}

impl Authorization {
    /// Parses `policy` and checks it against the schema.
    ///
    /// # Errors
    /// The policy does not parse, does not fit the schema, or is empty.
    pub fn new(policy: &str) -> Result<Self, PolicyError> {
        let internal = |error: &dyn std::fmt::Display| PolicyError::Internal(error.to_string());
        let (schema, _warnings) =
            Schema::from_cedarschema_str(SCHEMA).map_err(|error| internal(&error))?;
        let policies =
            PolicySet::from_str(policy).map_err(|error| PolicyError::Syntax(one_line(&error)))?;
        if policies.num_of_templates() > 0 {
            return Err(PolicyError::Template);
        }
        if policies.is_empty() {
            return Err(PolicyError::Empty);
        }
        let result = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(PolicyError::Schema(one_line(error)));
        }
        let name = |text| EntityTypeName::from_str(text).map_err(|error| internal(&error));
        Ok(Self {
            authorizer: Authorizer::new(),
            policies,
            schema,
            types: Types {
                caller: name("Caller")?,
                model: name("Model")?,
                enclave: name("Enclave")?,
                action: name("Action")?,
            },
            permitted: Mutex::default(),
        })
    }

    /// May `caller` have `model` generate at most `max_tokens` tokens?
    ///
    /// # Errors
    /// [`Denied`].
    pub fn chat(
        &self,
        caller: &SpiffeId,
        model: ModelFacts<'_>,
        max_tokens: u32,
        stream: bool,
    ) -> Result<Permit<Chat>, Denied> {
        let context = [
            (
                "max_tokens".to_owned(),
                RestrictedExpression::new_long(i64::from(max_tokens)),
            ),
            ("stream".to_owned(), RestrictedExpression::new_bool(stream)),
        ];
        self.on_model(caller, model, context)
    }

    /// May `caller` have `model` embed `inputs` texts?
    ///
    /// # Errors
    /// [`Denied`].
    pub fn embed(
        &self,
        caller: &SpiffeId,
        model: ModelFacts<'_>,
        inputs: usize,
    ) -> Result<Permit<Embed>, Denied> {
        let inputs = i64::try_from(inputs).unwrap_or(i64::MAX);
        self.on_model(
            caller,
            model,
            [("inputs".to_owned(), RestrictedExpression::new_long(inputs))],
        )
    }

    /// May `caller` have `model` score `documents` texts?
    ///
    /// # Errors
    /// [`Denied`].
    pub fn rerank(
        &self,
        caller: &SpiffeId,
        model: ModelFacts<'_>,
        documents: usize,
    ) -> Result<Permit<Rerank>, Denied> {
        let documents = i64::try_from(documents).unwrap_or(i64::MAX);
        self.on_model(
            caller,
            model,
            [(
                "documents".to_owned(),
                RestrictedExpression::new_long(documents),
            )],
        )
    }

    /// May `caller` see `model`?
    ///
    /// # Errors
    /// [`Denied`].
    pub fn list(&self, caller: &SpiffeId, model: ModelFacts<'_>) -> Result<Permit<List>, Denied> {
        self.on_model(caller, model, [])
    }

    /// May `caller` ask the enclave `enclave` for evidence?
    ///
    /// # Errors
    /// [`Denied`].
    pub fn attest(&self, caller: &SpiffeId, enclave: &SpiffeId) -> Result<Permit<Attest>, Denied> {
        let question = (caller.to_string(), enclave.to_string());
        if !self.with_permitted(|permitted| permitted.contains(&question)) {
            let uid = uid(&self.types.enclave, &question.1);
            let entity = Entity::new_no_attrs(uid.clone(), HashSet::new());
            self.decide::<Attest>(caller, uid, entity, [])?;
            self.with_permitted(|permitted| {
                if permitted.len() >= MAX_PERMITTED {
                    permitted.clear();
                }
                permitted.insert(question.clone());
            });
        }
        Ok(Permit {
            resource: question.1,
            action: PhantomData,
        })
    }

    /// Nothing in here can panic half-way, so what a poisoned lock guards is whole.
    fn with_permitted<T>(&self, access: impl FnOnce(&mut HashSet<(String, String)>) -> T) -> T {
        access(
            &mut self
                .permitted
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn on_model<A: Action>(
        &self,
        caller: &SpiffeId,
        model: ModelFacts<'_>,
        context: impl IntoIterator<Item = (String, RestrictedExpression)>,
    ) -> Result<Permit<A>, Denied> {
        let uid = uid(&self.types.model, model.name);
        let epoch = i64::try_from(model.epoch).unwrap_or(i64::MAX);
        let attributes = HashMap::from([
            (
                "kind".to_owned(),
                RestrictedExpression::new_string(model.kind.to_owned()),
            ),
            ("epoch".to_owned(), RestrictedExpression::new_long(epoch)),
        ]);
        let entity = Entity::new(uid.clone(), attributes, HashSet::new())
            .map_err(|error| unanswered::<A>(&error))?;
        self.decide::<A>(caller, uid, entity, context)?;
        Ok(Permit {
            resource: model.name.to_owned(),
            action: PhantomData,
        })
    }

    fn decide<A: Action>(
        &self,
        caller: &SpiffeId,
        resource: EntityUid,
        entity: Entity,
        context: impl IntoIterator<Item = (String, RestrictedExpression)>,
    ) -> Result<(), Denied> {
        let principal = uid(&self.types.caller, &caller.to_string());
        let person =
            Self::caller(principal.clone(), caller).map_err(|error| unanswered::<A>(&error))?;
        let action = uid(&self.types.action, A::NAME);
        let context = Context::from_pairs(context).map_err(|error| unanswered::<A>(&error))?;
        let request = Request::new(principal, action, resource, context, Some(&self.schema))
            .map_err(|error| unanswered::<A>(&error))?;
        let entities = Entities::from_entities([person, entity], Some(&self.schema))
            .map_err(|error| unanswered::<A>(&error))?;
        let response = self
            .authorizer
            .is_authorized(&request, &self.policies, &entities);
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(unanswered::<A>(error));
        }
        match response.decision() {
            Decision::Allow => Ok(()),
            Decision::Deny => Err(Denied { action: A::NAME }),
        }
    }

    fn caller(uid: EntityUid, id: &SpiffeId) -> Result<Entity, Box<EntityAttrEvaluationError>> {
        let segments = id
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| RestrictedExpression::new_string(segment.to_owned()));
        let attributes = HashMap::from([
            (
                "trust_domain".to_owned(),
                RestrictedExpression::new_string(id.trust_domain_name().to_owned()),
            ),
            (
                "path".to_owned(),
                RestrictedExpression::new_string(id.path().to_owned()),
            ),
            (
                "segments".to_owned(),
                RestrictedExpression::new_set(segments),
            ),
        ]);
        Entity::new(uid, attributes, HashSet::new()).map_err(Box::new)
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// A decision that could not be made is a denial; the operator sees why, the caller does not.
fn unanswered<A: Action>(error: &dyn std::fmt::Display) -> Denied {
    tracing::error!(action = A::NAME, reason = %error, "the policy could not be evaluated; denied");
    Denied { action: A::NAME }
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
