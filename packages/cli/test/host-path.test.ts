import { describe, expect, it } from 'vitest'
import { hostPath } from '../src/plan/host-path.js'

describe('hostPath', () => {
  const rules = [
    { from: '/images', to: '/mnt/copy' },
    { from: '/images/fast', to: '/ssd' },
  ]

  it.each([
    ['/mnt/copy/a.qcow2', '/images/a.qcow2'],
    ['/ssd/a.qcow2', '/images/fast/a.qcow2'],
    // Not a file of a rule: /images/fast is elsewhere.
    ['/mnt/copy/fast/a', '/mnt/copy/fast/a'],
    ['/mnt/copying/a', '/mnt/copying/a'],
    ['/other/a', '/other/a'],
  ])('%s was %s', (here, there) => {
    expect(hostPath(rules, here)).toBe(there)
  })
})
