//! The node as its clients see it: real sockets, bytes by hand.

mod client;
mod door;
mod door_h1;
mod door_h2;
mod stop;
