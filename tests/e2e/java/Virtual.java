import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * {@code Virtual PORT}: clients of an echo on that port, each blocked in a read on a virtual thread where the JDK has
 * them. First they are careless, and keep their connections at a checkpoint; from the word {@code careful} on they
 * close them and connect anew, as CRaC's contract demands.
 */
public final class Virtual {
    private static final int CLIENTS = 8;
    private static final ReentrantLock LOCK = new ReentrantLock();
    private static final Condition OPENED = LOCK.newCondition();
    private static final AtomicLong TICKS = new AtomicLong();

    private static int port;
    private static boolean isOpen = true;
    private static volatile boolean careful;
    private static volatile int cycles;
    private static volatile ServerSocket door;

    private Virtual() {}

    /** Connects again whenever its connection has ended, if it may. */
    private static final class Client {
        final int number;
        final LinkedBlockingQueue<String> heard = new LinkedBlockingQueue<>();
        volatile Socket socket;

        Client(int number) {
            this.number = number;
        }

        void run() {
            while (true) {
                if (!awaitOpen()) {
                    return;
                }
                try (Socket mine = new Socket(InetAddress.getLoopbackAddress(), port)) {
                    if (!publish(mine)) {
                        continue;
                    }
                    BufferedReader lines = new BufferedReader(new InputStreamReader(mine.getInputStream()));
                    if (number == 0) {
                        // JVM(21): who blocks within a monitor keeps the carrier.
                        synchronized (this) {
                            hear(lines);
                        }
                    } else {
                        hear(lines);
                    }
                } catch (IOException e) {
                    Life.check(!mayRun(), "client " + number + ": " + e);
                } finally {
                    socket = null;
                }
            }
        }

        private void hear(BufferedReader lines) throws IOException {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                heard.add(line);
            }
        }

        private boolean publish(Socket mine) {
            LOCK.lock();
            try {
                if (isOpen) {
                    socket = mine;
                }
                return isOpen;
            } finally {
                LOCK.unlock();
            }
        }

        /** Its thread is blocked in a read, and gets what comes. */
        void isAtWork(String when) throws Exception {
            Life.eventually("connection of client " + number + " " + when, () -> socket != null);
            String word = when + " " + number;
            socket.getOutputStream().write((word + "\n").getBytes());
            Life.same("heard", word, heard.poll(30, TimeUnit.SECONDS));
        }
    }

    private static boolean mayRun() {
        LOCK.lock();
        try {
            return isOpen;
        } finally {
            LOCK.unlock();
        }
    }

    private static boolean awaitOpen() {
        LOCK.lock();
        try {
            while (!isOpen) {
                OPENED.await();
            }
            return true;
        } catch (InterruptedException e) {
            return false;
        } finally {
            LOCK.unlock();
        }
    }

    private static void open(boolean whether) {
        LOCK.lock();
        try {
            isOpen = whether;
            OPENED.signalAll();
        } finally {
            LOCK.unlock();
        }
    }

    public static void main(String[] args) throws Exception {
        port = Integer.parseInt(args[0]);
        List<Client> clients = new ArrayList<>();
        for (int i = 0; i < CLIENTS; i++) {
            clients.add(new Client(i));
        }
        Life.register(() -> {
            if (!careful) {
                return;
            }
            open(false);
            for (Client client : clients) {
                Socket socket = client.socket;
                if (socket != null) {
                    socket.close();
                }
            }
            door.close();
            Life.eventually("closed", () -> clients.stream().allMatch(client -> client.socket == null) && door == null);
        }, () -> {
            open(true);
            cycles++;
        });
        clients.forEach(client -> start(client::run));
        start(Virtual::accept);
        start(Virtual::tick);
        areAtWork("at first", clients);
        Life.ready();
        String heard = "";
        while (!heard.equals("end")) {
            String before = heard;
            Life.eventually("a word", () -> !Life.hear().equals(before));
            heard = Life.hear();
            if (heard.equals("careful")) {
                areAtWork("after the refusal", clients);
                careful = true;
                System.out.println("careful");
            } else if (heard.startsWith("look ")) {
                int life = Integer.parseInt(heard.substring(5));
                // That of the refusal comes before.
                Life.eventually("after-hooks", () -> cycles == life + 1);
                areAtWork("in life " + life, clients);
                System.out.println("looked " + life);
            }
        }
        Life.verdict();
    }

    private static void areAtWork(String when, List<Client> clients) throws Exception {
        for (Client client : clients) {
            client.isAtWork(when);
        }
        Life.eventually("a door " + when, () -> door != null);
        try (Socket socket = new Socket(door.getInetAddress(), door.getLocalPort())) {
            Life.same("from the door " + when, 42, socket.getInputStream().read());
        }
        long ticks = TICKS.get();
        Life.eventually("ticks " + when, () -> TICKS.get() > ticks);
    }

    /** A server, which is blocked in accept. */
    private static void accept() {
        while (awaitOpen()) {
            try (ServerSocket mine = new ServerSocket(0, 5, InetAddress.getLoopbackAddress())) {
                door = mine;
                while (true) {
                    try (Socket socket = mine.accept()) {
                        socket.getOutputStream().write(42);
                    }
                }
            } catch (IOException e) {
                Life.check(!mayRun(), "door: " + e);
            } finally {
                door = null;
            }
        }
    }

    private static void tick() {
        try {
            while (true) {
                Thread.sleep(10);
                TICKS.incrementAndGet();
            }
        } catch (InterruptedException e) {
            Life.check(false, "tick: " + e);
        }
    }

    private static void start(Runnable body) {
        try {
            Thread.class.getMethod("startVirtualThread", Runnable.class).invoke(null, body);
        } catch (NoSuchMethodException e) {
            Thread thread = new Thread(body);
            thread.setDaemon(true);
            thread.start();
        } catch (IllegalAccessException | InvocationTargetException e) {
            throw new IllegalStateException(e);
        }
    }
}
