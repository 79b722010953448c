//! Library of `sip-filter`.
