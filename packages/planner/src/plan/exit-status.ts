import type { BackupPlan } from './types.js'

/**
 * The command line's exit status for a plan: 4 some disk cannot be told, 11 every disk needs a full backup,
 * 10 some do, 0 none.
 */
export function planExitStatus(plan: Pick<BackupPlan, 'disks'>): 0 | 4 | 10 | 11 {
  const modes = plan.disks.map(disk => disk.mode)
  if (modes.includes('unknown')) return 4
  if (!modes.includes('full')) return 0
  return modes.includes('incremental') ? 10 : 11
}
