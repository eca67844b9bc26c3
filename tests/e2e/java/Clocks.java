import java.util.ArrayList;
import java.util.List;
import java.util.Timer;
import java.util.TimerTask;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

/** Clocks, waits that a checkpoint interrupts, and schedules that must not run all that they missed. */
final class Clocks {
    /** Longer than it takes from the start to the image. */
    private static final long WAIT_MS = 12_000;

    /** More than a busy machine adds. */
    private static final long LATE_MS = 60_000;

    private static final long PERIOD_MS = 20;
    private static final List<Thread> WAITING = new ArrayList<>();

    private Clocks() {}

    interface Wait {
        void forMillis(long millis) throws Exception;
    }

    /** A wait on a thread of its own must last as long as it was asked for. */
    private static void waits(String what, Wait wait) {
        long start = System.nanoTime();
        Thread thread = new Thread(() -> Life.step(what, () -> {
            wait.forMillis(WAIT_MS);
            long took = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
            Life.check(took >= WAIT_MS - 1, what + ": ended after " + took + " ms");
            Life.check(took < WAIT_MS + LATE_MS, what + ": took " + took + " ms");
        }));
        thread.start();
        WAITING.add(thread);
    }

    /** Counts runs, which are never more than there were periods. */
    private static final class Schedule {
        final String what;
        final long start = System.nanoTime();
        final AtomicLong runs = new AtomicLong();

        Schedule(String what) {
            this.what = what;
        }

        void verify(long before) {
            long now = runs.get();
            long periods = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start) / PERIOD_MS;
            Life.check(now <= periods + 10, what + ": " + now + " runs in " + periods + " periods");
            Life.check(now > before, what + ": stands still after " + before);
        }
    }

    private static volatile boolean over;

    public static void main(String[] args) throws Exception {
        Object monitor = new Object();
        ReentrantLock lock = new ReentrantLock();
        Condition never = lock.newCondition();
        ScheduledExecutorService executor = Executors.newScheduledThreadPool(2);
        Timer timer = new Timer("timer");

        Schedule byExecutor = new Schedule("scheduleAtFixedRate of an executor");
        executor.scheduleAtFixedRate(byExecutor.runs::incrementAndGet, PERIOD_MS, PERIOD_MS, TimeUnit.MILLISECONDS);
        Schedule byTimer = new Schedule("scheduleAtFixedRate of a timer");
        timer.scheduleAtFixedRate(task(byTimer.runs::incrementAndGet), PERIOD_MS, PERIOD_MS);

        Thread clock = new Thread(() -> {
            long last = System.nanoTime();
            while (!over) {
                long now = System.nanoTime();
                Life.check(now >= last, "nanoTime went back by " + (last - now));
                Life.check(now - last < LATE_MS * 1_000_000, "nanoTime jumped by " + (now - last));
                last = now;
                LockSupport.parkNanos(100_000);
            }
        }, "clock");
        clock.start();

        waits("Thread.sleep", Thread::sleep);
        waits("Object.wait", millis -> {
            long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
            synchronized (monitor) {
                for (long left = millis; left > 0; left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime())) {
                    monitor.wait(left);
                }
            }
        });
        waits("parkNanos", millis -> {
            long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
            for (long left = end - System.nanoTime(); left > 0; left = end - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
        });
        waits("Condition.await", millis -> {
            lock.lock();
            try {
                long left = TimeUnit.MILLISECONDS.toNanos(millis);
                while (left > 0) {
                    left = never.awaitNanos(left);
                }
            } finally {
                lock.unlock();
            }
        });
        waits("schedule of an executor", millis -> executor.schedule(() -> 0, millis, TimeUnit.MILLISECONDS).get());
        waits("schedule of a timer", millis -> {
            CountDownLatch ran = new CountDownLatch(1);
            timer.schedule(task(ran::countDown), millis);
            ran.await();
        });

        Life.ready();
        Life.hear();
        long before = byExecutor.runs.get();
        long beforeByTimer = byTimer.runs.get();
        Life.check(WAITING.stream().allMatch(Thread::isAlive), "the image came too late to interrupt the waits");
        for (Thread thread : WAITING) {
            thread.join();
        }
        over = true;
        clock.join();
        byExecutor.verify(before);
        byTimer.verify(beforeByTimer);
        Life.verdict();
    }

    private static TimerTask task(Runnable body) {
        return new TimerTask() {
            @Override
            public void run() {
                body.run();
            }
        };
    }
}
