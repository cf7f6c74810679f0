import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['packages/*/test/**/*.test.ts'],
    reporters: ['default', './scripts/summary-reporter.mjs'],
    // Tests start real programs, QEMU, libvirt, tidemark itself, by the hundred; a loaded machine or a slow disk
    // made one that takes 5 s take more than 60. The limit is there to end what hangs, not to time anything.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    pool: 'forks',
    // On two cores: tests wait for QEMU and libvirt a third of the time.
    maxWorkers: 3,
  },
})
