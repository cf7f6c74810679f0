import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** A real program to test against. `libvirt` stands for all that a lab with a domain needs. */
export type Peer =
  | 'qemu-img'
  | 'qemu-io'
  | 'qemu-nbd'
  | 'qemu-storage-daemon'
  | 'qemu-system-x86_64'
  | 'nbdinfo'
  | 'nbdkit'
  | 'nbdfuse'
  | 'strace'
  | 'virsh'
  | 'xmllint'
  | 'libvirtd'
  | 'libvirt'
  | 'chromium'
  | 'zstd'
  | 'e2image'
  | 'mke2fs'

const programs: Partial<Record<Peer, readonly string[]>> = {
  libvirt: ['virsh', 'libvirtd', 'qemu-system-x86_64', 'qemu-img', 'qemu-io'],
}

/** The one command that installs every peer on Debian 12. */
export const installPeers =
  'apt-get install -y --no-install-recommends qemu-utils qemu-system-x86 qemu-system-common ' +
  'libvirt-daemon-system libvirt-clients libnbd-bin nbdkit libxml2-utils strace time zstd e2fsprogs chromium'

/**
 * The full path of a program, or undefined. The sbin folders are looked at too: libvirtd is there, and an
 * ordinary user's PATH on Debian lacks them.
 */
export function programPath(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin', '/sbin']
  for (const folder of folders) {
    if (folder === '') continue
    const path = join(folder, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // not there: the next folder
    }
  }
  return undefined
}

/** Those of the named programs (peers, or any other on PATH) that this machine lacks. */
export function missingPeers(...peers: readonly string[]): string[] {
  const wanted = new Set(peers.flatMap(peer => programs[peer as Peer] ?? [peer]))
  return [...wanted].filter(name => programPath(name) === undefined)
}

/** What `needs` tells a test file: hand both to `describe.skipIf`. */
export interface Need {
  skip: boolean
  /** Empty, or ` [skipped: needs …; install with: …]`: goes behind the name of the group. */
  label: string
}

/**
 * Declares the peers of a group of tests. Where one is missing the group is skipped, and its name says so;
 * with `CI=true` a missing peer is an error instead, so that a green run proves that nothing was skipped.
 *
 * @throws Error in CI, when a peer is missing.
 * @example
 * const peers = needs('qemu-img', 'nbdinfo')
 * describe.skipIf(peers.skip)('dirty maps' + peers.label, () => { … })
 */
export function needs(...peers: readonly Peer[]): Need {
  const missing = missingPeers(...peers)
  if (missing.length === 0) return { skip: false, label: '' }
  const message = `needs ${missing.join(', ')}; install with: ${installPeers}`
  if (process.env.CI === 'true') throw new Error(`this test ${message}`)
  return { skip: true, label: ` [skipped: ${message}]` }
}
