import { setTimeout as sleep } from 'node:timers/promises'
import { xmlText } from './libvirt-xml.js'
import type { RunResult } from './run.js'

/** What became of a backup: refused by libvirt (or failed as a job) with its words, or done. */
export type BackupOutcome = { accepted: true } | { accepted: false; error: string }

/** libvirt's own answer for one disk. */
export type Verdict = { verdict: 'accept' } | { verdict: 'reject'; error: string }

/** A push backup of just these disks, incremental since a checkpoint if one is named. */
export function backupXml(
  checkpoint: string | undefined,
  disks: readonly { target: string; file: string }[],
): string {
  const incremental = checkpoint === undefined ? '' : `<incremental>${xmlText(checkpoint)}</incremental>`
  const elements = disks.map(
    ({ target, file }) =>
      `<disk name='${target}' backup='yes' type='file'>` +
      `<driver type='qcow2'/><target file='${xmlText(file)}'/></disk>`,
  )
  return `<domainbackup mode='push'>${incremental}<disks>${elements.join('')}</disks></domainbackup>`
}

/**
 * Follows a backup from virsh's answer to its end. A pull backup runs until someone aborts it, so it is
 * accepted as soon as it runs.
 */
export async function backupBegin(
  begin: RunResult,
  xml: string,
  jobInfo: (...args: string[]) => Promise<string>,
): Promise<BackupOutcome> {
  if (begin.status !== 0) {
    return { accepted: false, error: begin.stderr.replaceAll(/^error: ?/gm, '').trim() }
  }
  if (/<domainbackup[^>]*\bmode=['"]pull/.test(xml)) return { accepted: true }
  for (let tries = 0; tries < 3000; tries++) {
    if (/Job type:\s+None/.test(await jobInfo())) {
      const done = await jobInfo('--completed')
      if (/Job type:\s+Completed/.test(done)) return { accepted: true }
      return { accepted: false, error: `the backup job did not complete:\n${done}` }
    }
    await sleep(20)
  }
  throw new Error('the backup does not end')
}
