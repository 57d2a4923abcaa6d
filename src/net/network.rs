//! A network as people write it: an address, or one with the length of what counts of it.
//!
//! Refuses what might be meant otherwise. Used by `redirect` the command, and by `kube` for annotations.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads an address or a network, such as `10.0.0.7`, `10.0.0.0/8` or `fd00::/8`.
///
/// # Errors
/// Why it is none, quoting it, and what would be right: no syntax of one, or bits set behind its length.
pub fn parse(text: &str) -> Result<IpNet, String> {
    let host = text.parse::<IpAddr>().map(IpNet::from);
    let network = host.or_else(|_no_address| text.parse::<IpNet>());
    let network = network.map_err(|_syntax| {
        format!("\"{text}\" is no network; write it like 10.0.0.0/8 or fd00::/8")
    })?;
    let meant = network.trunc();
    if network != meant {
        return Err(format!(
            "\"{text}\" has bits set behind its length; the network is {meant}"
        ));
    }
    Ok(network)
}

/// Reads a network that redirect rules leave alone.
///
/// # Errors
/// As [`parse`]; and for what is every address, which nobody can mean who asks for rules.
pub fn parse_exempt(text: &str) -> Result<IpNet, String> {
    let network = parse(text)?;
    if network.prefix_len() == 0 {
        return Err(format!(
            "\"{text}\" is every address: nothing would come to the sidecar, and all would go out unsigned; name the \
             networks that are meant"
        ));
    }
    Ok(network)
}
