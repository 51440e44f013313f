//! What end-to-end tests need.
