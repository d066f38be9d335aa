//! The router as a whole, between real HTTP clients and doubles of what is outside of it: replicas,
//! the world's control service, the world's own pages.

#[path = "router/bad_input.rs"]
mod bad_input;
#[path = "router/batching.rs"]
mod batching;
#[path = "router/control.rs"]
mod control;
#[path = "router/embeddings.rs"]
mod embeddings;
#[path = "router/protocol.rs"]
mod protocol;
#[path = "router/proxy.rs"]
mod proxy;
#[path = "router/support.rs"]
mod support;
