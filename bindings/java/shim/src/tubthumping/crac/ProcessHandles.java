package tubthumping.crac;

import java.lang.invoke.MethodHandle;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * What {@code ProcessHandle} remembers of this process and of those below it: the id, and the time of the start,
 * by which the JDK tells a process from a later one with its id. Those of a copy have started at its restore:
 * their handles would take them for others, and those that they mean for ended.
 *
 * <p>In: handles before the image. Out: the same handles, which mean the processes of the copy.
 *
 * <p>Not here: new ids of processes below this one ({@code --pids new}), as nobody tells which is which; handles of
 * processes that are not in the image.
 *
 * <p>JVM(since 17): {@code java.lang.ProcessHandleImpl} with {@code current}, {@code pid}, {@code startTime}, {@code
 * getCurrentPid0} and {@code isAlive0}, which says when a process started; same on 25.
 */
final class ProcessHandles {
    private Object own;
    private final List<Object> below = new ArrayList<>();
    private long ownPid;
    private Field pidOf;
    private Field startOf;
    private MethodHandle currentPid;
    private MethodHandle startOfPid;

    ProcessHandles() throws Exception {
        Class<?> type = Internals.type("java.lang.ProcessHandleImpl");
        if (!Internals.isInUse(type)) {
            // Nobody has a handle: whoever asks for the first one later asks the kernel.
            return;
        }
        pidOf = Internals.field(type, "pid");
        startOf = Internals.field(type, "startTime");
        currentPid = Internals.handle(type, "getCurrentPid0");
        startOfPid = Internals.handle(type, "isAlive0", long.class);
        own = Internals.field(type, "current").get(null);
        ownPid = pidOf.getLong(own);
        Set<ProcessHandle> descendants = ProcessHandle.current().descendants().collect(Collectors.toSet());
        if (!descendants.isEmpty()) {
            Object[] all = Agent.instances(new Class<?>[] {type});
            for (Object handle : all == null ? new Object[0] : all) {
                if (descendants.contains(handle)) {
                    below.add(handle);
                }
            }
        }
    }

    /** In the original, which does it for practice, this changes nothing. */
    void follow() throws Exception {
        if (own == null) {
            return;
        }
        long pid = (long) Internals.call(currentPid);
        pidOf.setLong(own, pid);
        follow(own, pid);
        if (pid == ownPid) {
            for (Object handle : below) {
                follow(handle, pidOf.getLong(handle));
            }
        }
    }

    private void follow(Object handle, long pid) throws Exception {
        long start = (long) Internals.call(startOfPid, pid);
        if (start >= 0) {
            startOf.setLong(handle, start);
        }
    }
}
