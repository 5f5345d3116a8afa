//! Throwaway databases on the test servers.
