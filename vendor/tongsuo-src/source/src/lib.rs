//! Holds a dependency only; see Cargo.toml.
