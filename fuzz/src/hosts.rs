//! Host names, patterns and origins: the canonical form is read as itself, and a pattern never reaches
//! beyond its labels.

use countersign::upstream::{Host, HostPattern, Origin};

/// See the file's head: two texts, parted by a line end.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let host: Option<Host> = first.parse().ok();
    if let Some(host) = &host {
        // With brackets, where it is an IPv6 address.
        let written = host.to_string();
        assert_eq!(written.parse().as_ref(), Ok(host));
        assert!(
            !written.contains(['/', '@', '?', '#', ' ', '\r', '\t']),
            "{written:?}"
        );
        assert_eq!(written, written.to_ascii_lowercase());
        assert_eq!(written.to_ascii_uppercase().parse().as_ref(), Ok(host));
    }
    if let Ok(origin) = first.parse::<Origin>() {
        let again: Origin = origin.to_string().parse().expect("our own form is read");
        assert_eq!(again.to_string(), origin.to_string());
    }
    if let (Some(host), Ok(pattern)) = (host, second.parse::<HostPattern>()) {
        let again: HostPattern = pattern.as_str().parse().expect("our own form is read");
        assert_eq!(again.matches(&host), pattern.matches(&host));
        if pattern.matches(&host) {
            let labels = |text: &str| text.split('.').count();
            assert_eq!(labels(host.as_str()), labels(pattern.as_str()));
            assert!(pattern.overlaps(&pattern));
        }
    }
}
