//! The interfaces that guests are written for. Each file only translates between its guests' types and the
//! hook vocabulary.

pub mod smg_v1;
