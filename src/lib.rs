//! Countersign: the sidecar. Its rooms follow.
