//! Structured fields (RFC 9651): placeholder.
