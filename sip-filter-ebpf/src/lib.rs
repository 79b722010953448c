//! Empty on purpose: it lets the controller's build script depend on this package, so that a change here
//! rebuilds the embedded object. The program is in `main.rs`.
#![no_std]
