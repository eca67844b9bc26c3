package tubthumping.crac;

import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * Tasks of {@code java.util.Timer}, which counts by the clock of the wall: in a copy everything that is
 * due would run at once, as often as it was missed, and on a host whose clock is behind nothing would
 * run for as long. They are moved by the time that the process did not live through, so that they run
 * when they would have run without the checkpoint, as everything does that counts by {@code
 * System.nanoTime()}.
 *
 * <p>In: both clocks before the image and in the copy. Out: tasks with other times, in their order.
 *
 * <p>Invariant: from {@link #hold} on until {@link #release} no timer begins a task.
 *
 * <p>Not here: {@code ScheduledExecutorService} and waits, whose clock goes on where it stood (the
 * engine's time namespace).
 *
 * <p>JVM(since 17): {@code TimerThread.queue}, {@code TaskQueue.queue} and {@code size}, {@code
 * TimerTask.nextExecutionTime}; same on 25.
 */
final class Timers {
    private final Class<?> threadType = Internals.type("java.util.TimerThread");
    private final Field threadQueue = Internals.field(threadType, "queue");
    private final Class<?> queueType = Internals.type("java.util.TaskQueue");
    private final Field queueTasks = Internals.field(queueType, "queue");
    private final Field queueSize = Internals.field(queueType, "size");
    private final Field taskTime =
            Internals.field(Internals.type("java.util.TimerTask"), "nextExecutionTime");
    private final List<Object> held = new ArrayList<>();
    private long wallMillis;
    private long nanos;

    Timers() throws ReflectiveOperationException {}

    /** Lets no timer go on, and remembers the time. */
    void hold() throws ReflectiveOperationException {
        for (Thread thread : threads()) {
            Object queue = threadType.isInstance(thread) ? threadQueue.get(thread) : null;
            if (queue != null) {
                // A timer holds it while it looks for what is due, not while a task runs.
                Agent.lock(queue);
                held.add(queue);
            }
        }
        wallMillis = System.currentTimeMillis();
        nanos = System.nanoTime();
    }

    void release() {
        held.forEach(Agent::unlock);
        held.clear();
    }

    /** Moves all tasks, in a copy. */
    void move() throws ReflectiveOperationException {
        long lived = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - nanos);
        move(System.currentTimeMillis() - wallMillis - lived);
    }

    /** By so many milliseconds, which keeps them in order. */
    private void move(long millis) throws ReflectiveOperationException {
        for (Object queue : held) {
            Object[] tasks = (Object[]) queueTasks.get(queue);
            // A heap from 1 on.
            for (int i = 1; i <= queueSize.getInt(queue); i++) {
                taskTime.setLong(tasks[i], taskTime.getLong(tasks[i]) + millis);
            }
            queue.notifyAll();
        }
    }

    /** Does both with nothing to do, so that all of it is loaded. */
    void rehearse() throws ReflectiveOperationException {
        hold();
        try {
            move(0);
        } finally {
            release();
        }
    }

    private static Thread[] threads() {
        ThreadGroup root = Thread.currentThread().getThreadGroup();
        while (root.getParent() != null) {
            root = root.getParent();
        }
        // Those that come meanwhile are nobody's who waits for a checkpoint.
        Thread[] found = new Thread[root.activeCount() + 64];
        root.enumerate(found);
        return found;
    }
}
