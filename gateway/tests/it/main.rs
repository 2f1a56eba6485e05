//! The gateway from outside: real PostgreSQL, real sockets, one module for each behaviour.

mod bindings;
mod bots;
mod broadcast;
mod cost;
mod demo_page;
mod dev;
mod doctor;
mod driver;
mod feed;
mod http;
mod join;
mod jwks;
mod oracle;
mod presence;
mod restart;
mod revocation;
mod schemas;
mod sdk_js;
mod sdk_python;
mod settings;
mod support;
mod tidy;
mod tokens;
mod wire;
