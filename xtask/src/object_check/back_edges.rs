//! Loops that old verifiers refuse for the way in which they are laid out.
//!
//! Before Linux 6.4 the verifier searches for loops by itself before it follows a program (check_cfg,
//! <https://github.com/torvalds/linux/blob/v6.1/kernel/bpf/verifier.c#L11095>). It goes depth first, to the next
//! instruction before the jump's target. An edge back to an instruction that it is still in the midst of closes a loop;
//! from a jump it lets that be, from any other instruction it says "back-edge from insn 12 to 3".

use std::collections::HashMap;

use super::instruction::{INSTRUCTION, Instruction};

/// An end of a loop that falls through into its head: the offsets of the two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackEdge {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Where an instruction leads.
enum Next {
    Nowhere,
    /// On to the next, and it is no jump.
    On,
    /// There alone.
    Jump(i64),
    /// To the next, or there.
    Branch(i64),
}

impl Next {
    /// Distances are in bytes from the instruction.
    fn of(instruction: &Instruction) -> Self {
        const CLASS: u8 = 0x07;
        const JUMPS: u8 = 0x05;
        const JUMPS_32: u8 = 0x06;
        const OPERATION: u8 = 0xf0;
        const ALWAYS: u8 = 0x00;
        const CALL: u8 = 0x80;
        const EXIT: u8 = 0x90;
        // Counted in instructions, from the next.
        let bytes = |distance: i64| (distance + 1) * INSTRUCTION as i64;
        let Instruction { opcode, jump, immediate, .. } = *instruction;
        match (opcode & CLASS, opcode & OPERATION) {
            (JUMPS | JUMPS_32, EXIT) => Self::Nowhere,
            // What is called begins a search of its own: nothing in it leads back here.
            (JUMPS | JUMPS_32, CALL) => Self::On,
            (JUMPS, ALWAYS) => Self::Jump(bytes(jump.into())),
            (JUMPS_32, ALWAYS) => Self::Jump(bytes(immediate.into())),
            (JUMPS | JUMPS_32, _) => Self::Branch(bytes(jump.into())),
            _ => Self::On,
        }
    }
}

/// The back edges of a function, of which these are all instructions, with their offsets.
pub(super) fn back_edges(instructions: &[(u64, Instruction)]) -> Vec<BackEdge> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Unseen,
        /// On the path that the search has taken to where it is.
        OnPath,
        Done,
    }

    let index: HashMap<u64, usize> =
        instructions.iter().enumerate().map(|(index, (offset, _))| (*offset, index)).collect();
    // What an instruction leads to, in the order in which the search takes it, and whether by a jump.
    let edges = |at: usize| -> Vec<(usize, bool)> {
        let (offset, instruction) = &instructions[at];
        let to = |distance: i64| index.get(&offset.checked_add_signed(distance)?).copied();
        let next = at + 1;
        let next = (next < instructions.len()).then_some(next);
        let (first, second, is_jump) = match Next::of(instruction) {
            Next::Nowhere => (None, None, false),
            Next::On => (next, None, false),
            Next::Jump(distance) => (to(distance), None, true),
            Next::Branch(distance) => (next, to(distance), true),
        };
        first.into_iter().chain(second).map(|to| (to, is_jump)).collect()
    };

    let mut found = Vec::new();
    let mut states = vec![State::Unseen; instructions.len()];
    let mut path = Vec::new();
    if let Some(first) = states.first_mut() {
        *first = State::OnPath;
        path.push((0, edges(0).into_iter()));
    }
    while let Some((at, rest)) = path.last_mut() {
        let at = *at;
        let Some((to, is_jump)) = rest.next() else {
            states[at] = State::Done;
            path.pop();
            continue;
        };
        match states[to] {
            State::Unseen => {
                states[to] = State::OnPath;
                path.push((to, edges(to).into_iter()));
            }
            State::OnPath if !is_jump => {
                found.push(BackEdge { from: instructions[at].0, to: instructions[to].0 });
            }
            State::OnPath | State::Done => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::instruction::instructions;
    use super::*;

    type Bytes = [u8; 8];

    const MOVE: Bytes = [0xb7, 0, 0, 0, 1, 0, 0, 0];
    const CALL_HELPER_7: Bytes = [0x85, 0, 0, 0, 7, 0, 0, 0];
    const EXIT: Bytes = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn jump(opcode: u8, distance: i16) -> Bytes {
        let [low, high] = distance.to_le_bytes();
        [opcode, 0, low, high, 0, 0, 0, 0]
    }

    fn goto(distance: i16) -> Bytes {
        jump(0x05, distance)
    }

    fn if_zero(distance: i16) -> Bytes {
        jump(0x15, distance)
    }

    /// The back edges, as numbers of 8-byte slots.
    fn of(program: &[Bytes]) -> Vec<(u64, u64)> {
        let decoded: Vec<_> = instructions(&program.concat(), true).collect();
        back_edges(&decoded).iter().map(|edge| (edge.from / 8, edge.to / 8)).collect()
    }

    #[test]
    fn programs_without_loops_have_none() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[MOVE, CALL_HELPER_7, EXIT]), []);
        assert_eq!(of(&[if_zero(1), MOVE, MOVE, EXIT]), [], "two ways to one place");
        assert_eq!(of(&[goto(1), EXIT, goto(-2)]), [], "back, and no loop");
    }

    #[test]
    fn a_loop_that_ends_in_a_jump_back_is_taken() {
        assert_eq!(of(&[MOVE, MOVE, if_zero(-2), EXIT]), []);
        assert_eq!(of(&[MOVE, if_zero(2), MOVE, goto(-3), EXIT]), []);
        assert_eq!(of(&[MOVE, jump(0x16, -2), EXIT]), [], "a comparison of 32 bits");
        assert_eq!(of(&[MOVE, [0x06, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]]), [], "a long jump");
    }

    #[test]
    fn a_loop_whose_end_falls_through_into_its_head_is_refused() {
        // Begun in its middle: 0 goes to 2, whose branch goes back to 1, which falls through into 2.
        assert_eq!(of(&[goto(1), MOVE, if_zero(-2), EXIT]), [(1, 2)]);
        assert_eq!(of(&[goto(1), CALL_HELPER_7, if_zero(-2), EXIT]), [(1, 2)], "a call is no jump");
    }

    #[test]
    fn a_loop_begun_in_its_middle_may_fall_in_from_a_jump() {
        assert_eq!(of(&[goto(2), MOVE, if_zero(0), if_zero(-3), EXIT]), []);
    }

    #[test]
    fn an_instruction_of_16_bytes_is_one() {
        // Its second half is shaped like an exit.
        let load = [[0x18, 1, 0, 0, 0, 0, 0, 0], EXIT];
        assert_eq!(of(&[goto(2), load[0], load[1], if_zero(-3), EXIT]), [(1, 3)]);
        assert_eq!(of(&[load[0], load[1], MOVE, if_zero(-4), EXIT]), []);
    }

    #[test]
    fn each_loop_is_reported_and_nested_loops_are_followed() {
        let one = [goto(1), MOVE, if_zero(-2)];
        assert_eq!(of(&[one.as_slice(), &one, &[EXIT]].concat()), [(4, 5), (1, 2)]);
        assert_eq!(of(&[MOVE, goto(1), MOVE, if_zero(-2), if_zero(-5), EXIT]), [(2, 3)]);
    }

    #[test]
    fn unreachable_code_is_ignored() {
        assert_eq!(of(&[EXIT, goto(1), MOVE, if_zero(-2), EXIT]), []);
    }

    #[test]
    fn jumps_out_of_the_function_lead_nowhere() {
        assert_eq!(of(&[if_zero(-7), if_zero(700), MOVE]), []);
    }
}
