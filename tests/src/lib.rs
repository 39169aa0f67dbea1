//! Harness, faults and oracle shared by the integration tests.
