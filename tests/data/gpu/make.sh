#!/bin/sh
# Makes the files of this folder again: one empty kernel, by the toolkits named in the file names.
# Usage: sh make.sh DIR, where DIR/12.8 and DIR/12.9 hold the unpacked wheels nvidia-cuda-nvcc-cu12
# 12.8.93 and 12.9.86, DIR/13.5 nvidia-cuda-nvcc 13.5.37; nvcc 13.0 must be on PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$1" && pwd)
work=$(mktemp -d)
cd "$work"
echo '__global__ void k() {}' >k.cu
for arch in 75 90 90a 100 100a 100f 103a 110a 120 120a 120f 121a 121f; do
  nvcc -cubin -arch "sm_$arch" -o "$here/13.0-sm_$arch.cubin" k.cu
done
compile() { # toolkit, PTX version, targets…
  toolkit=$1 isa=$2
  shift 2
  for arch in "$@"; do
    printf '.version %s\n.target sm_%s\n.address_size 64\n.visible .entry k() { ret; }\n' "$isa" "$arch" >k.ptx
    "$tools/$toolkit"/nvidia/*/bin/ptxas -arch "sm_$arch" -o "$here/$toolkit-sm_$arch.cubin" k.ptx
  done
}
compile 12.8 8.7 75 90 90a 100 100a 120 120a
compile 12.9 8.8 90a 100 100a 100f 120f 121a
compile 13.5 9.0 90a 120 120a 120f
all="-gencode arch=compute_75,code=sm_75 -gencode arch=compute_90a,code=sm_90a
 -gencode arch=compute_100,code=[sm_100,compute_100] -gencode arch=compute_120f,code=[sm_120f,compute_120f]
 -gencode arch=compute_121a,code=[sm_121a,compute_121a]"
for mode in none speed balance size; do
  nvcc -fatbin --compress-mode=$mode $all -o "$here/13.0-$mode.fatbin" k.cu
done
nvcc -fatbin -Xfatbin -compress-all $all -o "$here/13.0-all.fatbin" k.cu
nvcc -fatbin -rdc=true -gencode arch=compute_120,code=lto_120 -gencode arch=compute_90a,code=sm_90a \
  -o "$here/13.0-lto.fatbin" k.cu
nvcc -ptx -arch compute_121a -o "$here/13.0-compute_121a.ptx" k.cu
# A fatbin as 12.9's tools could have left it: no flag for `f`, the cubin's note has it.
"$tools"/13.5/nvidia/cu13/bin/fatbinary -64 --create="$here/12.9-in-13.5.fatbin" \
  --image3=kind=elf,sm=100f,file="$here/12.9-sm_100f.cubin" --image3=kind=elf,sm=100,file="$here/12.9-sm_100.cubin"
rm -r "$work"
