#!/bin/sh
# Goal: an existing PyTorch script runs unchanged as a gang of two.
. "$(dirname "$0")/lib.sh"
/usr/bin/python3 -c 'import torch.distributed' 2>/dev/null || skip "Debian's python3-torch is not installed (apt-get install python3-torch)"
start_capstan --bare
"$capstan" apply -f examples/pytorch/job.yaml
wait_until 120 "the gang succeeds" state_is pytorch succeeded
expect "rank 0" 'rank 0 of 2: sum over ranks 3' "$("$capstan" logs pytorch --rank 0)"
expect "rank 1" 'rank 1 of 2: sum over ranks 3' "$("$capstan" logs pytorch --rank 1)"
echo "pytorch: all passed"
