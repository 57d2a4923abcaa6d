//! Finds the token by its label, and the key on it by its own.
//!
//! Exactly one of each must be there. Whatever else is found is told by name, so that a wrong label is
//! mended at a glance. Refuses keys that cannot sign messages.

use std::sync::Arc;

use cryptoki::error::Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};

use countersign_protocol::PublicKey;

use super::error::{CallError, Place, TokenError};
use super::module::Inside;

/// A token with the label that was asked for.
pub(super) struct Token {
    /// Where it is.
    pub(super) slot: Slot,
    /// What it says of itself.
    pub(super) info: TokenInfo,
}

/// All tokens of a module that can be read, by label.
pub(super) fn tokens(inside: &Inside<'_>, at: &Arc<Place>) -> Result<Vec<Token>, TokenError> {
    let slots = inside.pkcs11.get_slots_with_token();
    let slots = slots.map_err(|error| failed(at, &error))?;
    let tokens = slots.into_iter().filter_map(|slot| {
        // A broken card in another reader is nobody's concern here.
        let info = inside.pkcs11.get_token_info(slot).ok()?;
        info.token_initialized().then_some(Token { slot, info })
    });
    Ok(tokens.collect())
}

/// The one token that has the label.
pub(super) fn token(tokens: Vec<Token>, at: &Arc<Place>) -> Result<Token, TokenError> {
    let labels = || tokens.iter().map(|token| token.info.label().to_owned());
    let count = labels().filter(|label| *label == at.token).count();
    let at = Arc::clone(at);
    if count > 1 {
        return Err(TokenError::SeveralTokens { at, count });
    }
    let mut labels: Vec<_> = labels().collect();
    labels.sort_unstable();
    let mut tokens = tokens.into_iter();
    let found = tokens.find(|token| token.info.label() == at.token);
    found.ok_or(TokenError::NoToken { at, labels })
}

/// The one private key that has the label, and its public half.
pub(super) fn key(
    session: &Session,
    at: &Arc<Place>,
) -> Result<(ObjectHandle, PublicKey), TokenError> {
    let label = || Attribute::Label(at.key.clone().into_bytes());
    let private = Attribute::Class(ObjectClass::PRIVATE_KEY);
    let found = find(session, &[private.clone(), label()], at)?;
    let handle = match *found.as_slice() {
        [handle] => handle,
        [] => return Err(no_key(session, at)?),
        _ => {
            return Err(TokenError::SeveralKeys {
                at: Arc::clone(at),
                count: found.len(),
            });
        }
    };
    let facts = attributes(session, handle, at)?;
    facts.check(at)?;
    let public = facts.public_key(session, at)?;
    Ok((handle, public))
}

/// What a key object says of itself, as far as it does.
#[derive(Default)]
struct Facts {
    kind: Option<KeyType>,
    signs: Option<bool>,
    always_authenticates: bool,
    id: Vec<u8>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl Facts {
    fn check(&self, at: &Arc<Place>) -> Result<(), TokenError> {
        let at = Arc::clone(at);
        match self {
            Self {
                kind: Some(kind), ..
            } if *kind != KeyType::RSA => {
                let found = algorithm(*kind);
                Err(TokenError::NotRsa { at, found })
            }
            Self {
                signs: Some(false), ..
            } => Err(TokenError::MayNotSign(at)),
            Self {
                always_authenticates: true,
                ..
            } => Err(TokenError::AlwaysAuthenticates(at)),
            _ => Ok(()),
        }
    }

    /// Private keys need not show their public half; then there is a public key beside them.
    fn public_key(self, session: &Session, at: &Arc<Place>) -> Result<PublicKey, TokenError> {
        let shown = if self.is_whole() {
            self
        } else {
            self.partner(session, at)?
        };
        PublicKey::from_components(&shown.modulus, &shown.exponent).map_err(|problem| {
            TokenError::Unusable {
                at: Arc::clone(at),
                problem,
            }
        })
    }

    fn partner(&self, session: &Session, at: &Arc<Place>) -> Result<Self, TokenError> {
        let by_id = (!self.id.is_empty()).then(|| Attribute::Id(self.id.clone()));
        let by_label = Some(Attribute::Label(at.key.clone().into_bytes()));
        for name in [by_id, by_label].into_iter().flatten() {
            let public = Attribute::Class(ObjectClass::PUBLIC_KEY);
            let rsa = Attribute::KeyType(KeyType::RSA);
            for handle in find(session, &[public, rsa, name], at)? {
                let facts = attributes(session, handle, at)?;
                if facts.is_whole() {
                    return Ok(facts);
                }
            }
        }
        Err(TokenError::NoPublicHalf(Arc::clone(at)))
    }

    fn is_whole(&self) -> bool {
        !self.modulus.is_empty() && !self.exponent.is_empty()
    }
}

fn attributes(
    session: &Session,
    handle: ObjectHandle,
    at: &Arc<Place>,
) -> Result<Facts, TokenError> {
    // One by one: modules differ in what they answer when one of several is not there.
    const WANTED: [AttributeType; 6] = [
        AttributeType::KeyType,
        AttributeType::Sign,
        AttributeType::AlwaysAuthenticate,
        AttributeType::Id,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    let mut facts = Facts::default();
    for wanted in WANTED {
        let found = session.get_attributes(handle, &[wanted]);
        for attribute in found.map_err(|error| failed(at, &error))? {
            match attribute {
                Attribute::KeyType(kind) => facts.kind = Some(kind),
                Attribute::Sign(signs) => facts.signs = Some(signs),
                Attribute::AlwaysAuthenticate(always) => facts.always_authenticates = always,
                Attribute::Id(id) => facts.id = id,
                Attribute::Modulus(modulus) => facts.modulus = modulus,
                Attribute::PublicExponent(exponent) => facts.exponent = exponent,
                _ => {}
            }
        }
    }
    Ok(facts)
}

/// The error that tells which keys there are.
fn no_key(session: &Session, at: &Arc<Place>) -> Result<TokenError, TokenError> {
    let private = Attribute::Class(ObjectClass::PRIVATE_KEY);
    let rsa = Attribute::KeyType(KeyType::RSA);
    let mut labels = Vec::new();
    for handle in find(session, &[private, rsa], at)? {
        let found = session.get_attributes(handle, &[AttributeType::Label]);
        for attribute in found.map_err(|error| failed(at, &error))? {
            if let Attribute::Label(label) = attribute {
                labels.push(String::from_utf8_lossy(&label).into_owned());
            }
        }
    }
    labels.sort_unstable();
    let at = Arc::clone(at);
    Ok(TokenError::NoKey { at, labels })
}

fn find(
    session: &Session,
    template: &[Attribute],
    at: &Arc<Place>,
) -> Result<Vec<ObjectHandle>, TokenError> {
    session
        .find_objects(template)
        .map_err(|error| failed(at, &error))
}

fn algorithm(kind: KeyType) -> String {
    match kind {
        KeyType::EC => "an EC key".to_owned(),
        KeyType::EC_EDWARDS => "an EdDSA key".to_owned(),
        KeyType::DSA => "a DSA key".to_owned(),
        other => format!("a key of the type {other}"),
    }
}

pub(super) fn failed(at: &Arc<Place>, error: &Error) -> TokenError {
    TokenError::Failed {
        at: Arc::clone(at),
        call: CallError::from(error),
    }
}
