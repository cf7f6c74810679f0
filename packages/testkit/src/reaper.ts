import { programPath } from './peers.js'

/**
 * Adopts what the program leaves behind (PR_SET_CHILD_SUBREAPER, 36) and buries it at once; ends as the program
 * does, and hands SIGTERM on to it. When its own parent has died (PR_SET_PDEATHSIG, 1) it kills them all.
 */
const adopt = (prctl: number): string =>
  `syscall(${prctl}, 36, 1, 0, 0, 0);
   $SIG{HUP} = sub { open my $list, '<', "/proc/$$/task/$$/children"; kill 'KILL', split ' ', <$list> };
   syscall(${prctl}, 1, 1, 0, 0, 0);
   my $child = fork; if (!$child) { exec @ARGV; exit 127 }
   $SIG{TERM} = sub { kill 'TERM', $child };
   while (1) { my $dead = wait; exit($? >> 8 || $? & 127) if $dead == $child; last if $dead < 0 && !$!{EINTR} }`

const prctl: Partial<Record<NodeJS.Architecture, number>> = { x64: 157, arm64: 167, s390x: 172, ppc64: 171 }

/**
 * The command line of a program whose orphans are buried at once. libvirt waits until a killed QEMU is gone, and in a
 * container whose first process looks after the dead only now and then that takes seconds. A test that is killed cannot
 * end its domains: they end with it. Without perl, or on
 * another machine than these, the program as it is.
 */
export function withReaper(program: string): [command: string, ...args: string[]] {
  const call = prctl[process.arch]
  const perl = programPath('perl')
  return call === undefined || perl === undefined ? [program] : [perl, '-e', adopt(call), program]
}
