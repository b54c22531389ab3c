//! Tests of the reactor's own insides on a real ring.
