//! Decisions shared by kernel and controller.
#![no_std]
