//! spike
use pidns_user::kernel::load::*;
use std::time::{Duration,Instant};
fn main() {
    let s=Settings{ring_bytes:8<<20,event_mask:u32::MAX,level_mask:u64::MAX,namespaces:vec![],pids:vec![],args:true,syscall_hooks:true,log_level:0};
    let t=Instant::now();
    let (l,mut r,_w)=match load(&s){Ok(x)=>x,Err(e)=>{eprintln!("{e}");std::process::exit(1)}};
    println!("load {:?}",t.elapsed());
    println!("{}",std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l|l.starts_with("VmHWM")||l.starts_with("VmRSS")).collect::<Vec<_>>().join(" "));
    let end=Instant::now()+Duration::from_secs(1);
    while Instant::now()<end { r.wait(Duration::from_millis(500)).unwrap(); r.drain(false,|h,rec|println!("{h:?} {rec:?}")); }
    println!("{:?} malformed {} missed {}",l.stats.read().unwrap(),r.malformed(),l.missed_runs());
}
