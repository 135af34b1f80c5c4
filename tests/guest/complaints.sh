#!/bin/sh
# In the guest: what the kernel's log has against this machine, or "kernel is quiet".
if ! dmesg | grep -E 'BUG:|Oops|WARNING:|soft lockup|hard LOCKUP|rcu.*stall|blocked for more|Call Trace|clocksource.*unstable'; then
    echo "kernel is quiet"
fi
