//! What the tests stand on: a real PostgreSQL, gateways in this process, clients that speak the protocol by hand.

pub(crate) mod chat;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod gateway;
pub(crate) mod process;
pub(crate) mod token;
pub(crate) mod wait;

pub(crate) use self::{
    client::{Channel, Client, Incoming, binding},
    cluster::{OwnCluster, TestDatabase},
    gateway::TestGateway,
};
