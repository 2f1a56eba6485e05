//! Tidings: a realtime websocket chat gateway for PostgreSQL.

pub mod admission;
pub mod app;
pub mod auth;
pub mod authorizer;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod connection;
pub mod database;
mod demo;
pub mod dispatch;
pub mod edge;
pub mod feed;
pub mod hub;
pub mod lifecycle;
pub mod limits;
mod memo;
pub mod metrics;
pub mod posting;
mod private;
mod resume;
pub mod revocation;
pub mod telemetry;
pub mod topics;
