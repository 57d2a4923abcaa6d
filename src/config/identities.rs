//! The `identities` section.
//!
//! Refuses the same client id or key version twice, and an identity without keys. Says nothing of
//! what is in the key files.

use std::path::Path;

use countersign_protocol::{KeyVersion, Offset};

use super::document::{Map, Node, Problems};
use super::{path, values};
use crate::keys::{Config, IdentityConfig, KeyConfig, Source, token};

/// Reads the section.
pub fn read(map: &mut Map, folder: &Path, problems: &mut Problems) -> Config {
    let mut config = Config::default();
    let usual = Usual {
        strict_permissions: switch(map, "strict_permissions", false, problems),
        try_all_keys: switch(map, "try_all_keys", false, problems),
    };
    let Some(list) = map.need("identities", problems) else {
        return config;
    };
    let place = list.place.clone();
    let items = list.list(problems);
    if items.is_empty() {
        problems.add(format!("{place}: at least one identity is needed"));
    }
    for item in items {
        let place = item.place.clone();
        let identity = item
            .map(problems)
            .and_then(|section| identity(section, (folder, usual), problems));
        let Some(identity) = identity else { continue };
        if config
            .identities
            .iter()
            .any(|other| other.client_id == identity.client_id)
        {
            problems.add(format!(
                "{place}: client_id {} is given twice",
                identity.client_id
            ));
        }
        config.identities.push(identity);
    }
    config
}

/// What holds for identities and keys that say nothing else.
#[derive(Clone, Copy)]
struct Usual {
    strict_permissions: bool,
    try_all_keys: bool,
}

fn identity(
    mut section: Map,
    (folder, usual): (&Path, Usual),
    problems: &mut Problems,
) -> Option<IdentityConfig> {
    let strict = usual.strict_permissions;
    let strict = switch(&mut section, "strict_permissions", strict, problems);
    let client_id = section
        .need("client_id", problems)
        .and_then(|node| node.parse(problems));
    let signing_key = section
        .need("signing_key", problems)
        .and_then(|node| key(node, (folder, strict), problems, true));
    let list = section.need("verification_keys", problems);
    let place = list
        .as_ref()
        .map(|node| node.place.clone())
        .unwrap_or_default();
    let items = list.map(|node| node.list(problems));
    if items.as_ref().is_some_and(Vec::is_empty) {
        problems.add(format!(
            "{place}: at least one of Alipay+'s public keys is needed"
        ));
    }
    let mut verification_keys: Vec<KeyConfig> = Vec::new();
    for item in items.unwrap_or_default() {
        let Some(key) = key(item, (folder, strict), problems, false) else {
            continue;
        };
        if verification_keys
            .iter()
            .any(|other| other.key_version == key.key_version)
        {
            problems.add(format!(
                "{}: key_version {} is given twice",
                key.place, key.key_version
            ));
        }
        verification_keys.push(key);
    }
    let time_offset = match section.take("time_offset") {
        Some(node) => node.parse_with(problems, |text| {
            text.parse()
                .map_err(|_shape| format!("\"{text}\" is no offset like Z or +08:00"))
        }),
        None => Some(Offset::default()),
    };
    let try_all_keys = switch(&mut section, "try_all_keys", usual.try_all_keys, problems);
    section.finish(problems);
    Some(IdentityConfig {
        client_id: client_id?,
        signing_key: signing_key?,
        verification_keys,
        try_all_keys,
        time_offset: time_offset?,
    })
}

fn key(
    node: Node,
    (folder, strict): (&Path, bool),
    problems: &mut Problems,
    private: bool,
) -> Option<KeyConfig> {
    let place = node.place.clone();
    let mut section = node.map(problems)?;
    let source = source(&mut section, folder, private, problems);
    let key_version = match section.take("key_version") {
        Some(node) => node.parse_with(problems, |text| {
            text.parse()
                .map_err(|_number| format!("\"{text}\" is no decimal number"))
        }),
        None => Some(KeyVersion::default()),
    };
    let passphrase_file = private
        .then(|| section.take("passphrase_file"))
        .flatten()
        .and_then(|node| path(&node, folder, problems));
    let strict_permissions = if private {
        switch(&mut section, "strict_permissions", strict, problems)
    } else {
        false
    };
    section.finish(problems);
    Some(KeyConfig {
        source: source?,
        key_version: key_version?,
        passphrase_file,
        strict_permissions,
        place,
    })
}

/// What a key is read from: exactly one of the ways.
fn source(
    section: &mut Map,
    folder: &Path,
    private: bool,
    problems: &mut Problems,
) -> Option<Source> {
    // Public keys have nothing to hide in a token.
    let ways = ["file", "env", "fd", "pkcs11"];
    let ways = ways.into_iter().filter(|way| private || *way != "pkcs11");
    let nodes: Vec<_> = ways
        .map(|key| section.take(key).map(|node| (key, node)))
        .collect();
    let mut given = nodes.into_iter().flatten();
    let Some((key, node)) = given.next() else {
        let place = section.place();
        problems.add(format!(
            "{place}: one of the keys {} is needed",
            if private {
                "file, env, fd and pkcs11"
            } else {
                "file, env and fd"
            }
        ));
        return None;
    };
    for (other, node) in given {
        node.problem(
            format!("stands beside {key}; only one of {key} and {other} can be meant"),
            problems,
        );
    }
    match key {
        "file" => path(&node, folder, problems).map(Source::File),
        "env" => node.parse_with(problems, variable).map(Source::Variable),
        "fd" => node
            .parse_with(problems, descriptor)
            .map(Source::Descriptor),
        _ => token(node.map(problems)?, folder, problems).map(Source::Token),
    }
}

fn token(mut section: Map, folder: &Path, problems: &mut Problems) -> Option<token::Config> {
    let text = |node: Node, problems: &mut Problems| node.text(problems).map(str::to_owned);
    let module = section.need("module", problems);
    // Without a slash it is the system loader's to find, as with every shared library.
    let module = module.and_then(|node| match node.text(problems)? {
        text if text.contains('/') => Some(folder.join(text)),
        text => Some(text.into()),
    });
    let token_label = section.need("token_label", problems);
    let token_label = token_label.and_then(|node| text(node, problems));
    let key_label = section.need("key_label", problems);
    let key_label = key_label.and_then(|node| text(node, problems));
    let pin_file = section.take("pin_file");
    let pin_file = pin_file.and_then(|node| path(&node, folder, problems));
    let sessions = section.take("sessions");
    let sessions = sessions.and_then(|node| node.parse_with(problems, sessions_of));
    section.finish(problems);
    Some(token::Config {
        module: module?,
        token_label: token_label?,
        key_label: key_label?,
        pin_file,
        sessions: sessions.unwrap_or(token::DEFAULT_SESSIONS),
    })
}

fn sessions_of(text: &str) -> Result<usize, String> {
    let most = token::MAX_SESSIONS;
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("\"{text}\" is no number of sessions from 1 to {most}"))
}

fn variable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['=', '\0']) {
        Err(format!("\"{text}\" is no name of an environment variable"))
    } else {
        Ok(text.to_owned())
    }
}

/// Standard output and error are where the log goes.
fn descriptor(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| !matches!(number, 1 | 2));
    number.ok_or_else(|| {
        format!("\"{text}\" is no file descriptor to read from; write a number like 3")
    })
}

fn switch(section: &mut Map, key: &'static str, otherwise: bool, problems: &mut Problems) -> bool {
    let node = section.take(key);
    let value = node.and_then(|node| node.parse_with(problems, values::switch));
    value.unwrap_or(otherwise)
}
