;; A WASI reactor, as compilers of larger languages make them: it has to be initialised, and it links functions of its host
;; whether it needs them or not. It tells what it got.
;;
;; `_initialize` asks for the environment, the first preopened directory and a file in it. Each request prints a line to
;; stdout and one to stderr, and is allowed with the header
;;
;;     x-reactor: VARIABLES,PRESTAT,OPEN
;;
;; the number of environment variables, and the errors of `fd_prestat_get` and `path_open`, in decimal.

(module
  (type $errno_of_two (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (type $errno_of_two)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (type $errno_of_two)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (type $errno_of_two)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (type $errno_of_two)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (type $errno_of_two)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  ;; Addresses of what is in memory:
  ;;   64  1 once initialised
  ;;   68  number of environment variables      72  error of fd_prestat_get      76  error of path_open
  ;;   80  what WASI returns, 16 bytes, or a list of one buffer for it to write
  ;;  128  the text below
  ;; 1024  the result, up to 4096, where the heap starts
  (memory (export "memory") 1)
  (data (i32.const 128) "reactor: a request\n")           ;; 19 bytes
  (data (i32.const 160) "reactor: it was allowed\n")      ;; 24 bytes
  (data (i32.const 192) "etc/passwd")                     ;; 10 bytes
  (data (i32.const 1024) "{\22decision\22:\22allow\22,\22add_request_headers\22:{\22x-reactor\22:\22")  ;; 56 bytes

  ;; The heap is a stack that is empty again when as many blocks were given back as were given out.
  (global $top (mut i32) (i32.const 4096))
  (global $blocks (mut i32) (i32.const 0))
  ;; Where the next byte of the result goes.
  (global $cursor (mut i32) (i32.const 0))

  (func $alloc (export "alloc") (param $size i32) (result i32)
    (local $block i32)
    (local $end i64)
    (local $missing i64)
    (local.set $block (global.get $top))
    ;; Blocks start at multiples of 8, and an empty one has an address of its own.
    (local.set $end
      (i64.and
        (i64.add
          (i64.add (i64.extend_i32_u (local.get $block)) (i64.extend_i32_u (local.get $size)))
          (i64.const 8))
        (i64.const -8)))
    (local.set $missing
      (i64.sub (local.get $end) (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16))))
    (if (i64.gt_s (local.get $missing) (i64.const 0))
      (then
        (if
          (i32.eq
            (memory.grow
              (i32.wrap_i64 (i64.shr_u (i64.add (local.get $missing) (i64.const 65535)) (i64.const 16))))
            (i32.const -1))
          (then (return (i32.const 0))))))
    (global.set $top (i32.wrap_i64 (local.get $end)))
    (global.set $blocks (i32.add (global.get $blocks) (i32.const 1)))
    (local.get $block))

  (func $dealloc (export "dealloc") (param $block i32) (param $size i32)
    ;; The result is not from the heap.
    (if (i32.lt_u (local.get $block) (i32.const 4096)) (then (return)))
    (if (i32.eqz (global.get $blocks)) (then (return)))
    (global.set $blocks (i32.sub (global.get $blocks) (i32.const 1)))
    (if (i32.eqz (global.get $blocks)) (then (global.set $top (i32.const 4096)))))

  ;; A runtime that can't start says so with its exit code.
  (func $must (param $errno i32)
    (if (local.get $errno)
      (then (call $proc_exit (i32.const 71)) (unreachable))))

  (func (export "_initialize")
    (local $pointers i32)
    (local $strings i32)
    (call $must (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 80)))
    (call $must (call $random_get (i32.const 80) (i32.const 8)))
    (call $must (call $args_sizes_get (i32.const 80) (i32.const 84)))
    (call $must (call $environ_sizes_get (i32.const 68) (i32.const 80)))
    (local.set $pointers (call $alloc (i32.shl (i32.load (i32.const 68)) (i32.const 2))))
    (local.set $strings (call $alloc (i32.load (i32.const 80))))
    (call $must (call $environ_get (local.get $pointers) (local.get $strings)))
    (call $dealloc (local.get $pointers) (i32.const 0))
    (call $dealloc (local.get $strings) (i32.const 0))
    (i32.store (i32.const 72) (call $fd_prestat_get (i32.const 3) (i32.const 80)))
    (i32.store (i32.const 76)
      (call $path_open
        (i32.const 3) (i32.const 0)
        (i32.const 192) (i32.const 10)
        (i32.const 0)
        (i64.const 2) (i64.const 0) ;; the right to read
        (i32.const 0)
        (i32.const 80)))
    (i32.store (i32.const 64) (i32.const 1)))

  (func (export "on_request_headers") (param $input i32) (param $len i32) (result i64)
    (if (i32.eqz (i32.load (i32.const 64))) (then (unreachable)))
    (call $print (i32.const 1) (i32.const 128) (i32.const 19))
    (call $print (i32.const 2) (i32.const 160) (i32.const 24))
    (global.set $cursor (i32.const 1080))
    (call $decimal (i32.load (i32.const 68)))
    (call $byte (i32.const 44))
    (call $decimal (i32.load (i32.const 72)))
    (call $byte (i32.const 44))
    (call $decimal (i32.load (i32.const 76)))
    (call $byte (i32.const 34))
    (call $byte (i32.const 125))
    (call $byte (i32.const 125))
    (i64.or
      (i64.shl (i64.const 1024) (i64.const 32))
      (i64.extend_i32_u (i32.sub (global.get $cursor) (i32.const 1024)))))

  ;; What can't be printed is lost, as with any logger.
  (func $print (param $fd i32) (param $text i32) (param $len i32)
    (i32.store (i32.const 80) (local.get $text))
    (i32.store (i32.const 84) (local.get $len))
    (drop (call $fd_write (local.get $fd) (i32.const 80) (i32.const 1) (i32.const 88))))

  (func $decimal (param $number i32)
    (if (i32.ge_u (local.get $number) (i32.const 10))
      (then (call $decimal (i32.div_u (local.get $number) (i32.const 10)))))
    (call $byte (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))

  (func $byte (param $byte i32)
    (i32.store8 (global.get $cursor) (local.get $byte))
    (global.set $cursor (i32.add (global.get $cursor) (i32.const 1)))))
