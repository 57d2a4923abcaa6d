//! Selects the identity that signs a request, from the request's `Client-Id` and the route.
//!
//! A request is never signed for a client other than the one it names. A `Client-Id` that names none
//! of the configured identities is refused, unless the route says `client_id_field: ignore`. Called by
//! `egress::flow` for requests that are signed; what passes unsigned is not looked at.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue};
use countersign_protocol::ClientId;
use countersign_protocol::message::CLIENT_ID;

use super::{Route, Rules};
use crate::exchange::{Code, Fault};
use crate::http::headers;
use crate::keys::Identity;

/// What happens to a request whose `Client-Id` names none of the configured identities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIdField {
    /// It is refused.
    #[default]
    Enforce,
    /// The value is ignored: the route's identity signs.
    Ignore,
}

impl Rules {
    /// The identity the request names, or the route's when the request has no `Client-Id`.
    ///
    /// # Errors
    /// [`Code::IdentityUnknown`] when the request names a client that is not configured, or when
    /// neither request nor route names one; [`Code::RequestMalformed`] when it names two of ours.
    pub(super) fn identity(
        &self,
        route: &Route,
        fields: &HeaderMap,
    ) -> Result<&Arc<Identity>, Fault> {
        let named = match route.client_id_field {
            ClientIdField::Enforce => {
                let field = CLIENT_ID;
                let values = headers::with_twins(fields, &field);
                let all: Option<Vec<_>> = names(values).map(|name| self.known(name)).collect();
                all.ok_or_else(|| {
                    let text = "the request's Client-Id is none of the configured identities";
                    Fault::not_sent(Code::IdentityUnknown, text)
                })?
            }
            ClientIdField::Ignore => names(fields.get_all(CLIENT_ID).iter())
                .filter_map(|name| self.known(name))
                .collect(),
        };
        if let Some((first, others)) = named.split_first() {
            // Whose money it is must never depend on which of two headers is read.
            if others.iter().any(|one| one.client_id != first.client_id) {
                let text = "the request names two clients of ours";
                return Err(Fault::not_sent(Code::RequestMalformed, text));
            }
            return Ok(first);
        }
        let Some(client_id) = &route.identity else {
            let text = "the request has no Client-Id of ours, and its route names no identity";
            return Err(Fault::not_sent(Code::IdentityUnknown, text));
        };
        self.keyring
            .identity(client_id)
            .ok_or_else(|| Fault::not_sent(Code::SigningFailed, "the route's identity has no keys"))
    }

    fn known(&self, name: Option<&str>) -> Option<&Arc<Identity>> {
        let client_id = ClientId::parse(name?).ok()?;
        self.keyring.identity(&client_id)
    }
}

/// Each client id in the values of the field; nothing for one that is not text. No id has a comma: it
/// separates what libraries and proxies have joined (RFC 9110 section 5.3).
fn names<'a>(
    values: impl Iterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = Option<&'a str>> {
    values.flat_map(|value| {
        let text = value.to_str().ok();
        let parts = text.into_iter().flat_map(|text| text.split(','));
        let unreadable = text.is_none().then_some(None);
        parts
            .map(|part| Some(part.trim_matches([' ', '\t'])))
            .chain(unreadable)
    })
}
