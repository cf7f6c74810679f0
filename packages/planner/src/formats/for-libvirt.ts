import type { BackupPlan, DiskPlan } from '../plan/types.js'

/**
 * Incremental disks of which libvirt would make something else: it does not know the checkpoint, refuses disabled
 * bitmaps (the chained dialect), and unites no others with the asked checkpoint's.
 */
export function beyondLibvirt({ disks, incremental }: BackupPlan): readonly DiskPlan[] {
  return disks.filter(
    ({ mode, libvirt, merge }) =>
      mode === 'incremental' && (libvirt !== 'accept' || merge.some(({ bitmap }) => bitmap !== incremental)),
  )
}

/** The plan as libvirt can carry it out: those disks are full. */
export function forLibvirt(plan: BackupPlan): BackupPlan {
  const beyond = beyondLibvirt(plan)
  if (beyond.length === 0) return plan
  const disks = plan.disks.map((disk): DiskPlan => (beyond.includes(disk) ? { ...disk, mode: 'full' } : disk))
  return { ...plan, disks }
}

/** Those disks and why libvirt copies them whole, in a sentence; undefined where there is none. */
export function beyondText(plan: BackupPlan): string | undefined {
  const beyond = beyondLibvirt(plan)
  if (beyond.length === 0) return undefined
  const unknown = beyond.some(({ reasons }) => reasons.some(({ code }) => code === 'checkpoint-not-loaded'))
  const why = unknown
    ? 'libvirt does not load the metadata of the checkpoint'
    : 'libvirt cannot unite the bitmaps of several checkpoints'
  return `${beyond.map(({ target }) => target).join(', ')}: full, since ${why}.`
}

/** An XML comment that says so, or nothing. */
export function beyondComment(plan: BackupPlan): string {
  const text = beyondText(plan)
  if (text === undefined) return ''
  // Two hyphens end no comment, but may not stand in one.
  return `<!-- ${text.replace(/[^\x20-\x7e]/g, '?').replaceAll('--', '- -')} -->\n`
}
