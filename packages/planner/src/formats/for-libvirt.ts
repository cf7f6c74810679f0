import type { BackupPlan, DiskPlan } from '../plan/types.js'

/**
 * Incremental disks of which libvirt would make something else: it refuses disabled bitmaps (the chained dialect), and
 * unites no others with the asked checkpoint's.
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

/** An XML comment that names those disks, or nothing. */
export function beyondComment(plan: BackupPlan): string {
  const targets = beyondLibvirt(plan).map(({ target }) => target)
  if (targets.length === 0) return ''
  const text = `${targets.join(', ')}: full, since libvirt cannot unite the bitmaps of several checkpoints.`
  // Two hyphens end no comment, but may not stand in one.
  return `<!-- ${text.replace(/[^\x20-\x7e]/g, '?').replaceAll('--', '- -')} -->\n`
}
