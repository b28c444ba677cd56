//! SM2, SM3 and SM4 (GB/T 32918, 32905, 32907) with the instructions of the processor at hand: no C library, no IO, no allocation on
//! the way of data. What runs is chosen once, from what [`cpu::features`] finds; everything has a portable form that gives the same answers.
//!
//! Nothing here branches on a secret or uses one as an index. `unsafe` stands only where vectors are loaded and stored and where a
//! function for certain instructions is entered after the processor was asked, and around the instructions of SM2's field.

pub mod cpu;
pub mod ghash;
mod inout;
pub mod sm2;
pub mod sm3;
pub mod sm4;

pub use inout::InOut;
